#!/bin/sh
# Makes what is in the root file system of the guest beside its packages: a database whose
# pages have checksums, filled for pgbench. mmdebstrap runs it with the folder.
set -eu
exec chroot "$1" sh -eu <<'IN'
version=$(ls /usr/lib/postgresql)
pg_dropcluster "$version" main
pg_createcluster "$version" main -- --data-checksums --wal-segsize=4
cat > "/etc/postgresql/$version/main/conf.d/bench.conf" <<'CONF'
jit = off
max_wal_size = 128MB
min_wal_size = 8MB
checkpoint_timeout = 60s
CONF
pg_ctlcluster "$version" main start
as_owner() { runuser -u postgres -- "$@"; }
as_owner createdb bench
as_owner pgbench --quiet --initialize --scale=5 bench
as_owner psql -qX -v ON_ERROR_STOP=1 bench <<'SQL'
CREATE EXTENSION amcheck;
CREATE TABLE acknowledged (n bigint PRIMARY KEY, body text NOT NULL, sum text NOT NULL);
SQL
as_owner psql -qX -c CHECKPOINT bench
pg_ctlcluster "$version" main stop
# What nothing here uses is not copied at the pace of an emulated processor.
rm -f /usr/lib/*/libLLVM-* /usr/lib/*/libz3.so* "/usr/lib/postgresql/$version/lib/llvmjit"*
rm -rf "/usr/lib/postgresql/$version/lib/bitcode" /usr/share/i18n /usr/lib/python3* \
  /usr/lib/udev/hwdb* /usr/lib/*/perl/*/auto/Encode/[A-Z][A-Z] /usr/lib/*/perl/*/CORE
IN
