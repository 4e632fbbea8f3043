#!/bin/sh
# mdev.sh ROOT
# Gives the system under ROOT the kernel's own sample parents mtty, mdpy and mbochs, built from Debian's source of
# the very kernel that it boots, and nvidia_sample, a driver with the attributes of NVIDIA's vGPUs. What builds them is removed again: the machine's disk holds only what is tested.
set -eu
root=$1
kernel=$(basename "$root"/lib/modules/*)
version=$(printf '%s' "$kernel" | cut -d. -f1,2)

chroot "$root" sh -eu -s "$kernel" "$version" <<'END'
kernel=$1 version=$2
apt-get update -q
apt-mark showmanual | sort >/tmp/manual
apt-get install -q --yes --no-install-recommends -o Dpkg::Options::=--force-unsafe-io \
  "linux-headers-$kernel" "linux-source-$version" make xz-utils
# A module of another source may load and not work: one version everywhere, or no image. Debian's own revision of the
# source may be ahead: kernels are signed some days after they are built.
of() { dpkg-query --showformat='${Version}' --show "$1"; }
headers=$(of "linux-headers-$kernel") source=$(of "linux-source-$version") image=$(of "linux-image-$kernel")
if [ "$headers" != "$image" ] || [ "${source%-*}" != "${image%-*}" ]; then
  echo "the headers are $headers, the source is $source, the kernel $kernel is $image" >&2
  exit 1
fi

mkdir /tmp/build
tar -C /tmp/build --strip-components=3 -xf "/usr/src/linux-source-$version.tar.xz" \
  "linux-source-$version/samples/vfio-mdev"
cd /tmp/build
cat >nvidia_sample.c <<'C'
// SPDX-License-Identifier: GPL-2.0-only
/*
 * For tests: offers the attributes of NVIDIA's vGPUs (Virtual GPU Software User Guide, "SR-IOV vGPU") on QEMU's edu
 * devices. All of them together have two units; a type takes one or two. There is no alias in the module, so that only
 * tests load it.
 */
#include <linux/module.h>
#include <linux/pci.h>

static bool offered = true;
module_param(offered, bool, 0644);
MODULE_PARM_DESC(offered, "whether types are offered, as after the start of nvidia-vgpud");

static const struct { unsigned int id, units; const char *name; } types[] = {
	{588, 1, "NVIDIA SAMPLE-1B"}, {589, 2, "NVIDIA SAMPLE-2B"},
};
static unsigned int left = 2;
static DEFINE_MUTEX(lock);

struct vgpu { unsigned int type; };

static unsigned int units_of(unsigned int id)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (types[i].id == id)
			return types[i].units;
	return 0;
}

static ssize_t current_vgpu_type_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct vgpu *vgpu = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%u\n", vgpu->type);
}

static ssize_t current_vgpu_type_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
	struct vgpu *vgpu = dev_get_drvdata(dev);
	unsigned int id, units;
	int err = kstrtouint(buf, 10, &id);

	if (err)
		return err;
	mutex_lock(&lock);
	units = units_of(id);
	if (id == 0) {
		left += units_of(vgpu->type);
		vgpu->type = 0;
	} else if (vgpu->type) {
		err = -EPERM;
	} else if (!offered || !units || units > left) {
		err = -EINVAL;
	} else {
		left -= units;
		vgpu->type = id;
	}
	mutex_unlock(&lock);
	return err ? err : count;
}

static ssize_t creatable_vgpu_types_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct vgpu *vgpu = dev_get_drvdata(dev);
	int i, at = sysfs_emit(buf, "ID    : vGPU Name\n");

	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (offered && !vgpu->type && types[i].units <= left)
			at += sysfs_emit_at(buf, at, "%-6u: %s\n", types[i].id, types[i].name);
	return at;
}

static DEVICE_ATTR_RW(current_vgpu_type);
static DEVICE_ATTR_RO(creatable_vgpu_types);
static struct attribute *attributes[] = {
	&dev_attr_current_vgpu_type.attr, &dev_attr_creatable_vgpu_types.attr, NULL,
};
static const struct attribute_group group = {.name = "nvidia", .attrs = attributes};

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct vgpu *vgpu = devm_kzalloc(&pdev->dev, sizeof(*vgpu), GFP_KERNEL);

	if (!vgpu)
		return -ENOMEM;
	pci_set_drvdata(pdev, vgpu);
	return sysfs_create_group(&pdev->dev.kobj, &group);
}

static void remove(struct pci_dev *pdev)
{
	struct vgpu *vgpu = pci_get_drvdata(pdev);

	sysfs_remove_group(&pdev->dev.kobj, &group);
	mutex_lock(&lock);
	left += units_of(vgpu->type);
	mutex_unlock(&lock);
}

static const struct pci_device_id ids[] = {{PCI_DEVICE(0x1234, 0x11e8)}, {}};
static struct pci_driver nvidia_sample_driver = {
	.name = "nvidia-sample", .id_table = ids, .probe = probe, .remove = remove,
};
module_pci_driver(nvidia_sample_driver);
MODULE_LICENSE("GPL");
C
echo 'obj-m := mtty.o mdpy.o mbochs.o nvidia_sample.o' >Makefile
make -C "/lib/modules/$kernel/build" M=/tmp/build modules
install -D -m 644 -t "/lib/modules/$kernel/extra" mtty.ko mdpy.ko mbochs.ko nvidia_sample.ko
depmod "$kernel"

apt-mark showmanual | sort >/tmp/manual.now
comm -13 /tmp/manual /tmp/manual.now | xargs -r apt-mark auto
apt-get autoremove -q --yes --purge -o Dpkg::Options::=--force-unsafe-io
cd /
rm -rf /tmp/build /tmp/manual /tmp/manual.now /var/lib/apt/lists/* /var/cache/apt/*
for module in mtty mdpy mbochs nvidia_sample; do modinfo -k "$kernel" "$module" >/dev/null; done
END
