/** The beginnings of disks with data, made here because the machine has no programs for most of them. */

const sector = 512;

/** CRC-32 with the usual polynomial, as GPT (inverted) and LVM (plain) have it. */
function crc32(bytes: Buffer, start: number): number {
  let crc = start;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return crc >>> 0;
}

/**
 * An empty GUID partition table of 512-byte sectors (UEFI specification, 5.3): protective MBR, header, entries. The
 * backup at the end of the disk is missing, as on a disk that has grown.
 */
export function guidTable(sectors: number): Buffer {
  const disk = Buffer.alloc(34 * sector);
  disk.writeUInt8(0xee, 446 + 4);
  disk.writeUInt32LE(1, 446 + 8);
  disk.writeUInt32LE(sectors - 1, 446 + 12);
  disk.writeUInt16LE(0xaa55, 510);
  const entries = disk.subarray(2 * sector);
  const header = disk.subarray(sector, sector + 92);
  header.write('EFI PART');
  header.writeUInt32LE(0x10000, 8);
  header.writeUInt32LE(92, 12);
  header.writeBigUInt64LE(1n, 24);
  header.writeBigUInt64LE(BigInt(sectors - 1), 32);
  header.writeBigUInt64LE(34n, 40);
  header.writeBigUInt64LE(BigInt(sectors - 34), 48);
  header.write('pearasys-test-id', 56);
  header.writeBigUInt64LE(2n, 72);
  header.writeUInt32LE(128, 80);
  header.writeUInt32LE(128, 84);
  header.writeUInt32LE(~crc32(entries, 0xffffffff) >>> 0, 88);
  header.writeUInt32LE(~crc32(header, 0xffffffff) >>> 0, 16);
  return disk;
}

/** The label of an LVM physical volume (libblkid, superblocks/lvm.c). */
export function physicalVolume(): Buffer {
  const disk = Buffer.alloc(2 * sector);
  const label = disk.subarray(sector);
  label.write('LABELONE');
  label.writeBigUInt64LE(1n, 8);
  label.writeUInt32LE(32, 20);
  label.write('LVM2 001', 24);
  label.write('pearasystestpearasystestpearasys', 32);
  label.writeUInt32LE(crc32(label.subarray(20), 0xf597a6cf), 16);
  return disk;
}

/** A member of an md array, with superblock 1.2 (include/uapi/linux/raid/md_p.h). */
export function raidMember(): Buffer {
  const disk = Buffer.alloc(4096 + 256);
  const block = disk.subarray(4096);
  block.writeUInt32LE(0xa92b4efc, 0);
  block.writeUInt32LE(1, 4);
  block.write('pearasys-test-id', 16);
  block.writeUInt32LE(1, 72);
  block.writeUInt32LE(2, 92);
  block.writeBigUInt64LE(2048n, 128);
  block.writeBigUInt64LE(8n, 144);
  let sum = 0n;
  for (let at = 0; at < block.length; at += 4) sum += BigInt(block.readUInt32LE(at));
  block.writeUInt32LE(Number(((sum & 0xffffffffn) + (sum >> 32n)) & 0xffffffffn), 216);
  return disk;
}

/** A LUKS header of version 1. */
export function encryptedVolume(): Buffer {
  const disk = Buffer.alloc(sector);
  disk.write('LUKS');
  disk.writeUInt16BE(0xbabe, 4);
  disk.writeUInt16BE(1, 6);
  disk.write('aes', 8);
  disk.write('xts-plain64', 40);
  disk.write('sha256', 72);
  disk.write('12345678-1234-1234-1234-123456789abc', 168);
  return disk;
}
