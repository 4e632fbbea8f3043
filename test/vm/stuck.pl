#!/usr/bin/perl
# stuck.pl SLOT|UUID [hidden]
# Does to a device what a guest does: opens its VFIO group, container and device, says "held" and keeps them until it
# is killed. A write to the driver's `unbind`, or to a mediated device's `remove`, meanwhile never returns. A PCI
# device must be bound to a VFIO driver and its group viable. With `hidden` only the device stays open, by a descriptor that does not say which device it is.
use strict;
use warnings;

my ($name, $hidden) = @ARGV;
my $group = readlink((glob "/sys/bus/{pci,mdev}/devices/$name/iommu_group")[$name =~ /:/ ? 0 : 1]) or die "$name: $!\n";
$group =~ s{.*/}{};

# linux/vfio.h: _IO(';', 100 + n)
my $VFIO_SET_IOMMU = 0x3b66;
my $VFIO_GROUP_SET_CONTAINER = 0x3b68;
my $VFIO_GROUP_GET_DEVICE_FD = 0x3b6a;
my $VFIO_TYPE1_IOMMU = 1;

open my $container, '+<', '/dev/vfio/vfio' or die "/dev/vfio/vfio: $!\n";
open my $group_file, '+<', "/dev/vfio/$group" or die "/dev/vfio/$group: $!\n";
ioctl $group_file, $VFIO_GROUP_SET_CONTAINER, pack('i', fileno $container) or die "VFIO_GROUP_SET_CONTAINER: $!\n";
ioctl $container, $VFIO_SET_IOMMU, $VFIO_TYPE1_IOMMU or die "VFIO_SET_IOMMU: $!\n";
ioctl $group_file, $VFIO_GROUP_GET_DEVICE_FD, "$name\0" or die "VFIO_GROUP_GET_DEVICE_FD: $!\n";
close $group_file if $hidden;
$| = 1;
print "held\n";
sleep while 1;
