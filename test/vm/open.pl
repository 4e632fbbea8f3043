#!/usr/bin/perl
# open.pl SLOT
# Does to a device what a userspace driver does: opens its VFIO group, container and device, and maps a page of its
# memory for the device. Says "mapped". In no-IOMMU mode nothing can be mapped: says "opened".
use strict;
use warnings;

my ($slot) = @ARGV;
# linux/vfio.h: _IO(';', 100 + n)
my $VFIO_SET_IOMMU = 0x3b66;
my $VFIO_GROUP_SET_CONTAINER = 0x3b68;
my $VFIO_GROUP_GET_DEVICE_FD = 0x3b6a;
my $VFIO_IOMMU_MAP_DMA = 0x3b71;
my ($VFIO_TYPE1_IOMMU, $VFIO_NOIOMMU_IOMMU) = (1, 8);
my $READ_AND_WRITE = 3;
my $page = 4096;

my ($group) = readlink("/sys/bus/pci/devices/$slot/iommu_group") =~ m{([^/]+)$};
my $isolated = -e "/dev/vfio/$group";
my $node = $isolated ? "/dev/vfio/$group" : "/dev/vfio/noiommu-$group";
open my $container, '+<', '/dev/vfio/vfio' or die "/dev/vfio/vfio: $!\n";
open my $group_file, '+<', $node or die "$node: $!\n";
ioctl $group_file, $VFIO_GROUP_SET_CONTAINER, pack('i', fileno $container) or die "VFIO_GROUP_SET_CONTAINER: $!\n";
ioctl $container, $VFIO_SET_IOMMU, $isolated ? $VFIO_TYPE1_IOMMU : $VFIO_NOIOMMU_IOMMU or die "VFIO_SET_IOMMU: $!\n";
ioctl $group_file, $VFIO_GROUP_GET_DEVICE_FD, "$slot\0" or die "VFIO_GROUP_GET_DEVICE_FD: $!\n";
if (!$isolated) {
    print "opened\n";
    exit;
}
my $memory = "\0" x (2 * $page);
my $address = unpack 'J', pack 'p', $memory;
$address += $page - $address % $page;
# struct vfio_iommu_type1_dma_map: argsz, flags, vaddr, iova, size
my $map = pack 'LLQQQ', 32, $READ_AND_WRITE, $address, 16 * $page, $page;
ioctl $container, $VFIO_IOMMU_MAP_DMA, $map or die "VFIO_IOMMU_MAP_DMA: $!\n";
print "mapped\n";
