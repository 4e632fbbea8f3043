#!/bin/sh
# customize.sh ROOT OUT
# Turns the fresh system under ROOT into the test machine's, and leaves vmlinuz and initrd in OUT.
set -eu
root=$1 out=$2
here=$(dirname "$0")

# Machine code that is made while a program runs costs the emulator more than it saves: V8 interprets, for runs this short.
cat >"$root/usr/local/bin/node" <<END
#!/bin/sh
exec /usr/bin/node --no-opt --no-sparkplug --regexp-interpret-all "\$@"
END
chmod 755 "$root/usr/local/bin/node"

echo pearasys-vm >"$root/etc/hostname"
echo '127.0.0.1 localhost pearasys-vm' >"$root/etc/hosts"
# A known id, or systemd takes every boot of a fresh overlay for the first one and applies presets.
echo 70656172617379730000000000000001 >"$root/etc/machine-id"
echo '/dev/vda / ext4 rw,noatime 0 0' >"$root/etc/fstab"
mkdir -p "$root/mnt/checkout"

# The journal of the boot before is what explains a shutdown that went wrong.
mkdir -p "$root/var/log/journal" "$root/etc/systemd/journald.conf.d"
cat >"$root/etc/systemd/journald.conf.d/test.conf" <<END
[Journal]
Storage=persistent
RateLimitIntervalSec=0
SystemMaxUse=64M
END

# Not needed by any test, and each costs time without KVM.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
  e2scrub_reap.service fstrim.timer man-db.timer getty@tty1.service serial-getty@ttyS0.service \
  getty-static.service systemd-pstore.service systemd-random-seed.service \
  systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-hwdb-update.service \
  systemd-tpm2-setup-early.service systemd-tpm2-setup.service systemd-pcrextend.socket \
  ldconfig.service modprobe@efi_pstore.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# Each daemon-reload runs all generators. Of what they look for the machine has only an fstab.
mkdir -p "$root/etc/systemd/system-generators"
for generator in "$root"/usr/lib/systemd/system-generators/* "$root"/lib/systemd/system-generators/*; do
  case ${generator##*/} in
    systemd-fstab-generator | '*') ;;
    *) ln -sf /dev/null "$root/etc/systemd/system-generators/${generator##*/}" ;;
  esac
done

# Drivers of devices that are in the machine only because the board has them, or for no device at all.
echo 'blacklist kvm_amd
blacklist kvm_intel
blacklist powernow_k8
blacklist acpi_cpufreq
blacklist iTCO_wdt
blacklist pcspkr
blacklist psmouse' >"$root/etc/modprobe.d/test.conf"

install -m 755 "$here/agent.pl" "$root/usr/local/sbin/pearasys-agent"
chroot "$root" perl -c /usr/local/sbin/pearasys-agent
# It is there from the first moment to the last: no ordering, no conflict with shutdown.target, and a slice that
# does not conflict with it either.
cat >"$root/etc/systemd/system/pearasys-agent.service" <<END
[Unit]
Description=Agent of the test runner
DefaultDependencies=no
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
Slice=-.slice
ExecStart=@/usr/bin/perl @pearasys-agent /usr/local/sbin/pearasys-agent
Restart=always
KillMode=process
OOMScoreAdjust=-1000
WorkingDirectory=/root
Environment=HOME=/root LANG=C.UTF-8 TERM=dumb SYSTEMD_COLORS=0
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
TasksMax=infinity
END
mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
ln -sf ../pearasys-agent.service "$root/etc/systemd/system/sysinit.target.wants/pearasys-agent.service"

kernel=$(basename "$root"/lib/modules/*)
tree=$(mktemp -d)
mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/root"
install -m 755 "$here/init" "$tree/init"
install -m 755 "$root/bin/busybox" "$tree/bin/busybox"
for applet in sh mount insmod sed tr usleep switch_root; do
  ln -s busybox "$tree/bin/$applet"
done

# carry FOLDER MODULE...: the modules and all they need, numbered in the order of loading.
carry() {
  mkdir -p "$tree/modules/$1"
  folder=$tree/modules/$1
  shift
  for module; do
    chroot "$root" modprobe -S "$kernel" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done | awk '!seen[$0]++ { printf "%03d %s\n", NR, $0 }' | while read -r number file; do
    name=$number-$(basename "$file")
    case $file in
      *.xz) xz -dc "$root$file" >"$folder/${name%.xz}" ;;
      *.zst) zstd -qdc "$root$file" >"$folder/${name%.zst}" ;;
      *) cp "$root$file" "$folder/$name" ;;
    esac
  done
}
# crc32c_generic is what ext4 asks the kernel for by name and not by a dependency.
carry base crc32c_generic virtio_pci virtio_blk ext4 virtio_console
carry nvme nvme
carry e1000e e1000e

# Uncompressed: the host reads it in no time, the emulated processor unpacks slowly.
mv "$tree" "$root/initrd.tmp"
chroot "$root" sh -c 'cd /initrd.tmp && find . | cpio --quiet -o -H newc -R 0:0' >"$out/initrd"
rm -rf "$root/initrd.tmp"
cp "$root/boot/vmlinuz-$kernel" "$out/vmlinuz"
rm -rf "$root"/boot/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
