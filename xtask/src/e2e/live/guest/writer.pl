#!/usr/bin/perl
# Writes rows and files, each with its SHA-256, and tells the host of each once it is durable:
# "row N SUM" when PostgreSQL has acknowledged its transaction, "file SUM PATH" when file and
# folder are synced. Files lie in turns on both disks.
#   writer.pl RUN, a name for the files of this run
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use IO::Handle;
use IPC::Open2;
my ($run) = @ARGV;
open my $host, '>:raw', '/dev/virtio-ports/guest.acknowledged' or die "port: $!";
open my $noise, '<:raw', '/dev/urandom' or die "urandom: $!";
sub noise { sysread $noise, my $bytes, $_[0]; return $bytes }
# What was told before may have been cut off.
sub tell_host { syswrite $host, "\n$_[0]\n" }

my $rows = fork // die "fork: $!";
if ($rows == 0) {
    open2(my $out, my $in, qw(runuser -u postgres -- psql -qAtX -v ON_ERROR_STOP=1 bench));
    $in->autoflush(1);
    print $in "SELECT coalesce(max(n), 0) FROM acknowledged;\n";
    chomp(my $number = <$out> // die "the database does not answer\n");
    while (1) {
        $number++;
        my $body = unpack 'H*', noise(100 + $number % 400);
        my $sum = sha256_hex($body);
        print $in "INSERT INTO acknowledged VALUES ($number, '$body', '$sum') RETURNING n;\n";
        my $told = <$out> // die "the database ended\n";
        tell_host("row $number $sum") if $told eq "$number\n";
        # The copying is to have its part of the processors.
        select undef, undef, undef, 0.05;
    }
}
my @folders = ('/srv/files', '/srv/data/files');
for (my $number = 1;; $number++) {
    my $folder = $folders[$number % @folders];
    my $path = "$folder/$run-$number";
    my $body = noise(1 + 16384 + ($number * 7919) % 49152);
    my $sum = sha256_hex($body);
    open my $file, '>:raw', $path or die "$path: $!";
    print $file $body;
    $file->flush && $file->sync or die "$path: $!";
    close $file or die "$path: $!";
    open my $around, '<', $folder or die "$folder: $!";
    $around->sync or die "$folder: $!";
    close $around;
    tell_host("file $sum $path");
    select undef, undef, undef, 0.2;
}
