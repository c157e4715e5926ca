#!/usr/bin/perl
# Runs what the host asks for over a virtio-serial port, one request at a time. A request is
# a line with two lengths, a script for sh and what it reads; the answer is a line with the
# exit status and two lengths, and what it printed to stdout and to stderr.
# It touches nothing but /run, so that it goes on while the file systems are frozen.
use strict;
use warnings;
my $folder = '/run/guest-console';
mkdir $folder;
my $port;
until (open $port, '+<:raw', '/dev/virtio-ports/guest.console') { select undef, undef, undef, 0.1 }
sub take {
    my ($length) = @_;
    my $bytes = '';
    while (length $bytes < $length) {
        my $got = sysread $port, $bytes, $length - length $bytes, length $bytes;
        # Nobody is at the other end now.
        select undef, undef, undef, 0.05 unless $got;
    }
    return $bytes;
}
sub put {
    my ($bytes) = @_;
    my $sent = 0;
    $sent += syswrite($port, $bytes, length($bytes) - $sent, $sent) // 0 while $sent < length $bytes;
}
sub file {
    my ($name, $bytes) = @_;
    open my $file, '>:raw', "$folder/$name" or die "$name: $!";
    print $file $bytes;
    close $file or die "$name: $!";
}
sub content {
    my ($name) = @_;
    open my $file, '<:raw', "$folder/$name" or die "$name: $!";
    local $/;
    return <$file> // '';
}
while (1) {
    my $line = '';
    $line .= take(1) until $line =~ /\n\z/;
    my ($script, $input) = $line =~ /^(\d+) (\d+)$/ or next;
    file('script', take($script));
    file('in', take($input));
    my $child = fork // die "fork: $!";
    if ($child == 0) {
        close $port;
        open STDIN, '<', "$folder/in" or die;
        open STDOUT, '>', "$folder/out" or die;
        open STDERR, '>', "$folder/err" or die;
        exec '/bin/sh', '-eu', "$folder/script" or die;
    }
    waitpid $child, 0;
    my $status = $? & 127 ? 128 + ($? & 127) : $? >> 8;
    my ($out, $err) = (content('out'), content('err'));
    put(sprintf "%d %d %d\n%s%s", $status, length $out, length $err, $out, $err);
}
