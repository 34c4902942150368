# What a test host is made of: its packages, and what is changed in them. `tests/prepare` sources this file, builds the
# root file system from it, and names the result after its checksum, so that an edit here makes a new one. A copy lies in
# the result as /etc/testbed-rootfs, by which the library notices a root file system older than this file.
#
# Nothing in here knows a host's name or address: those are files that the library adds before each boot.

packages=(
  systemd systemd-sysv dbus
  php-fpm php8.2-opcache php8.2-apcu nginx-light
  sudo openssh-server
  curl jq procps iproute2
)

# Units that a host in a test has no use for. Each one costs boot time, or wakes up in the middle of a measurement, or
# listens where a test must not listen (every host shares the machine's network).
masked_units=(
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer logrotate.timer
  man-db.timer phpsessionclean.timer systemd-tmpfiles-clean.timer
  e2scrub_reap.service systemd-pstore.service
  console-getty.service getty@.service getty.target
  systemd-logind.service systemd-update-utmp.service systemd-update-utmp-runlevel.service
  systemd-networkd.service systemd-networkd.socket systemd-resolved.service systemd-timesyncd.service
)

# customise ROOT: turns the freshly installed system under ROOT into a test host.
customise() {
  local root=$1 unit

  # The names of a test are in /etc/hosts; asking a name server would make tests depend on the machine's network.
  # A left-over /etc/hostname would override `systemd-nspawn --hostname`; an empty machine-id is filled in at boot.
  rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
  : >"$root/etc/machine-id"
  sed -i 's/^hosts:.*/hosts: files/' "$root/etc/nsswitch.conf"

  # sshd and nginx listen on every address out of the box. sshd is for tests that enable it with an address of its own;
  # nginx gets its one site, with the host's address in it, from the library.
  chroot "$root" systemctl --quiet disable ssh.service
  rm -f "$root/etc/nginx/sites-enabled/default" "$root/etc/nginx/modules-enabled/"*
  sed -i 's/^worker_processes .*/worker_processes 1;/' "$root/etc/nginx/nginx.conf"

  for unit in "${masked_units[@]}"; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done

  # Audit lines are read back with journalctl; a journal in memory is enough and quick.
  install -d "$root/etc/systemd/journald.conf.d"
  cat >"$root/etc/systemd/journald.conf.d/testbed.conf" <<'CONF'
[Journal]
Storage=volatile
RateLimitIntervalSec=0
CONF

  # Enough children that the load of a test never queues, all of them there from the start.
  sed -i -e 's/^pm = .*/pm = static/' -e 's/^pm.max_children = .*/pm.max_children = 20/' \
    "$root/etc/php/8.2/fpm/pool.d/www.conf"

  # The two pages of the default site. slow.php is the request that a careless restart kills.
  rm -f "$root/var/www/html/"*
  cat >"$root/var/www/html/index.php" <<'PHP'
<?php
header('Content-Type: text/plain');
echo 'ok ', getmypid(), "\n";
PHP
  cat >"$root/var/www/html/slow.php" <<'PHP'
<?php
usleep(1000 * (int) ($_GET['ms'] ?? 0));
header('Content-Type: text/plain');
echo 'ok ', getmypid(), "\n";
PHP

  rm -rf "$root/var/cache/apt/"* "$root/var/lib/apt/lists/"*
}
