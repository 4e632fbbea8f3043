#!/usr/bin/perl
# register.pl SLOT OFFSET VALUE
# Sets a device up as a guest does: opens it through VFIO, enables its memory, writes VALUE to a register of BAR 0. Says
# what the register holds, then and each time that it gets a line.
use strict;
use warnings;

my ($slot, $register, $value) = @ARGV;
my ($SYS_pread64, $SYS_pwrite64) = (17, 18);
# linux/vfio.h, see stuck.pl; VFIO_PCI_CONFIG_REGION_INDEX, and where vfio-pci has a region in the descriptor.
my ($VFIO_SET_IOMMU, $VFIO_GROUP_SET_CONTAINER, $VFIO_GROUP_GET_DEVICE_FD) = (0x3b66, 0x3b68, 0x3b6a);
my $config = 7 << 40;
my ($COMMAND, $MEMORY_AND_MASTER) = (4, 6);

my ($group) = readlink("/sys/bus/pci/devices/$slot/iommu_group") =~ m{([^/]+)$};
open my $container, '+<', '/dev/vfio/vfio' or die "/dev/vfio/vfio: $!\n";
open my $group_file, '+<', "/dev/vfio/$group" or die "/dev/vfio/$group: $!\n";
ioctl $group_file, $VFIO_GROUP_SET_CONTAINER, pack('i', fileno $container) or die "VFIO_GROUP_SET_CONTAINER: $!\n";
ioctl $container, $VFIO_SET_IOMMU, 1 or die "VFIO_SET_IOMMU: $!\n";
my $device = ioctl $group_file, $VFIO_GROUP_GET_DEVICE_FD, "$slot\0" or die "VFIO_GROUP_GET_DEVICE_FD: $!\n";

sub put {
    my ($at, $bytes) = @_;
    syscall($SYS_pwrite64, $device + 0, $bytes, length $bytes, $at) == length $bytes or die "pwrite: $!\n";
}

put($config + $COMMAND, pack('v', $MEMORY_AND_MASTER));
put(hex $register, pack('V', hex $value));
$| = 1;
do {
    my $bytes = "\0" x 4;
    syscall($SYS_pread64, $device + 0, $bytes, 4, hex $register) == 4 or die "pread: $!\n";
    printf "register %x\n", unpack 'V', $bytes;
} while defined <STDIN>;
