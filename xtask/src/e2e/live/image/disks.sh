#!/bin/sh
# Makes the guest's two disks out of the archive of its root file system: one with a GPT,
# grub and an ext4 root, one with a GPT and an XFS that holds the database's log.
#   disks.sh ARCHIVE FOLDER ROOT_MIB DATA_MIB
# FOLDER has guest/ with what goes into the root, and gets root.raw and data.raw. It runs in
# a mount namespace of its own, so that nothing stays mounted.
set -eu
archive=$1 folder=$2 root_mib=$3 data_mib=$4
root=$folder/mnt
loops=
trap 'cd /; umount -R "$root" 2>&- || :; for loop in $loops; do partx -d "$loop" || :; losetup -d "$loop"; done; rmdir "$root" || :' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$root"

truncate -s "${root_mib}M" "$folder/root.raw"
truncate -s "${data_mib}M" "$folder/data.raw"
sfdisk -q "$folder/root.raw" <<'TABLE'
label: gpt
size=1MiB, type=21686148-6449-6E6F-744E-656564454649
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
TABLE
# The last MiB of it stays free: see the control that writes unseen.
sfdisk -q "$folder/data.raw" <<TABLE
label: gpt
size=$((data_mib - 4))MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
TABLE
disk=$(losetup -f --show "$folder/root.raw"); loops="$loops $disk"
partx -a "$disk"
data=$(losetup -f --show "$folder/data.raw"); loops="$loops $data"
partx -a "$data"
mkfs.ext4 -q -L root "${disk}p2"
mkfs.xfs -q -L data "${data}p1"

mount "${disk}p2" "$root"
tar -C "$root" --numeric-owner -xf "$archive"
mkdir -p "$root/srv/data"
mount "${data}p1" "$root/srv/data"
cp -r "$folder/guest/." "$root/"
chown -R 0:0 "$root/usr/local/lib/guest"
cat > "$root/etc/fstab" <<'TABLE'
LABEL=root / ext4 errors=remount-ro 0 1
LABEL=data /srv/data xfs defaults 0 2
LABEL=state /var/lib/dunlin ext4 nofail,x-systemd.device-timeout=60 0 2
TABLE
# The agent's data folder is on a disk that is not moved: the copy has none.
mkdir -p "$root/etc/systemd/system/dunlin.service.d"
cat > "$root/etc/systemd/system/dunlin.service.d/folder.conf" <<'TABLE'
[Unit]
RequiresMountsFor=/var/lib/dunlin
TABLE
mkdir -p "$root/var/lib/dunlin" "$root/srv/data/files" "$root/srv/files"
for cluster in "$root"/var/lib/postgresql/*/main; do
  mv "$cluster/pg_wal" "$root/srv/data/wal"
  ln -s /srv/data/wal "$cluster/pg_wal"
done
echo guest > "$root/etc/hostname"
echo '127.0.0.1 localhost guest' > "$root/etc/hosts"
# What has another machine's identity would be taken for that machine.
: > "$root/etc/machine-id"
cat > "$root/etc/systemd/network/10-guest.network" <<'TABLE'
[Match]
Name=en* eth*
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
TABLE
cat >> "$root/etc/default/grub" <<'TABLE'
GRUB_TIMEOUT=0
GRUB_TERMINAL=serial
GRUB_CMDLINE_LINUX="console=ttyS0 net.ifnames=0"
TABLE

# grub asks the machine's devices for the root's UUID: it is shown these two only.
mount -t tmpfs none "$root/dev"
for node in null zero full random urandom; do cp -a "/dev/$node" "$root/dev/"; done
chmod 666 "$root/dev/null"
cp -a "$disk" "${disk}p1" "${disk}p2" "$root/dev/"
mkdir -p "$root/dev/disk/by-uuid"
ln -s "../../${disk##*/}p2" "$root/dev/disk/by-uuid/$(blkid -s UUID -o value "${disk}p2")"
mount -t proc none "$root/proc"
mount -t sysfs none "$root/sys"
chroot "$root" sh -eu <<IN
grub-install --target=i386-pc "$disk"
update-grub
systemctl -q enable systemd-networkd guest-console
systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_reap e2scrub_all.timer fstrim.timer man-db.timer systemd-networkd-wait-online getty@tty1 serial-getty@ttyS0
IN
