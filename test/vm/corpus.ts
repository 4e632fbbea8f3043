/** The corpus of records, tested with the real udev. */
import {recordCases, subject, type RecordCase} from '../corpus/records.js';

/** A device of the test machine, used in the records instead of the card of the corpus. */
interface Tried {
  readonly slot: string;
  readonly id: string;
  readonly subsystem: string;
  readonly path: string;
}

/**
 * A shell script for the test machine. For each record of the corpus it removes the device, writes the record, checks
 * it as at boot, adds the device again, and prints the override that udev's rule has written.
 */
export function corpusScript({slot, id, subsystem, path}: Tried): string {
  const [vendor = '', product = ''] = id.split(':');
  const translate = (text: string) =>
    text
      .replaceAll(subject.slot, slot)
      .replaceAll(subject.subsystem, subsystem)
      .replaceAll(subject.path, path)
      .replaceAll(subject.id, id)
      .replaceAll(subject.id.toUpperCase(), id.toUpperCase());
  const attempt = ({content, mode = 0o644, folderMode = 0o755, foreign, kind}: RecordCase) =>
    [
      "base64 -d >/etc/elsewhere <<'EOF'",
      Buffer.from(translate(content)).toString('base64'),
      'EOF',
      `try ${mode.toString(8)} ${folderMode.toString(8)} ${foreign ?? 'root'} ${kind ?? 'file'}`,
    ].join('\n');
  return `folder=/etc/pearasys/pci
record=$folder/${slot}-0x${vendor}-0x${product}
device=/sys/bus/pci/devices/${slot}
try() {
  echo 1 >$device/remove
  rm -rf $record
  chmod $1 /etc/elsewhere
  case $4 in
    file) mv /etc/elsewhere $record ;;
    link) ln -s /etc/elsewhere $record ;;
    folder) mkdir $record ;;
    fifo) mkfifo $record ;;
  esac
  case $3 in
    file) chown 65534 $record ;;
    folder) chown 65534 $folder ;;
  esac
  chmod $2 $folder
  /usr/local/libexec/pearasys/early 2>/dev/null
  echo 1 >/sys/bus/pci/rescan
  udevadm settle
  cat $device/driver_override
  chown 0 $folder
  chmod 755 $folder
}
${recordCases.map(attempt).join('\n')}
rm -rf $record /etc/elsewhere
`;
}
