import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {closeSync, openSync, writeSync} from 'node:fs';
import {constants} from 'node:os';
import {errnoName, errnoOf, explainErrno, isErrno} from '../../src/host/errno.js';
import {FileError, WriteError} from '../../src/host/errors.js';

/** What Node throws for an errno that libuv does not translate. */
const unknownToNode = (errno: number) =>
  Object.assign(new Error(`Unknown system error ${-errno}`), {
    errno: -errno,
    code: `Unknown system error ${-errno}`,
  });

describe('errno', () => {
  it('has a name and words for each that Node has, and for each that Node does not have', () => {
    for (const [name, number] of Object.entries(constants.errno)) {
      assert.equal(
        errnoName(number),
        name === 'ENOTSUP' ? 'EOPNOTSUPP' : name === 'EWOULDBLOCK' ? 'EAGAIN' : name,
      );
      assert.ok(isErrno(errnoName(number)), String(number));
    }
    for (let number = 1; number <= 133; number++) {
      if (number === 41 || number === 58) continue;
      const name = errnoName(number);
      assert.match(name, /^E[A-Z0-9]+$/, String(number));
      assert.equal(errnoOf(unknownToNode(number)), name);
      assert.match(explainErrno(name), /^E[A-Z0-9]+ \(.+\)$/);
      assert.doesNotMatch(explainErrno(name), /\((?:E[A-Z]|Unknown)/);
    }
  });

  for (const [number, name, words] of [
    [87, 'EUSERS', 'too many users: no more can be created'],
    [98, 'EADDRINUSE', 'address already in use'],
    [95, 'EOPNOTSUPP', 'not supported'],
    [110, 'ETIMEDOUT', 'timed out'],
    [121, 'EREMOTEIO', 'remote I/O error'],
    [517, 'EPROBE_DEFER', 'the driver waits for another device or driver'],
    [524, 'ENOTSUPP', 'the driver does not support it'],
    [132, 'ERFKILL', 'operation not possible due to RF-kill'],
  ] as const)
    it(`${name} is named and explained wherever the kernel returns it`, () => {
      assert.equal(errnoOf(unknownToNode(number)), name);
      assert.match(new WriteError('/sys/x', '1', name).message, new RegExp(`: ${name} \\(${words}\\)$`));
      assert.match(new FileError('reading', '/x', name).message, new RegExp(`${name} \\(${words}\\)$`));
    });

  it('a number without a name is printed as it is, and other errors as EUNKNOWN', () => {
    assert.equal(errnoOf(unknownToNode(600)), 'errno 600');
    assert.equal(explainErrno('errno 600'), 'errno 600');
    assert.equal(errnoOf(new Error('x')), 'EUNKNOWN');
    assert.equal(errnoOf(undefined), 'EUNKNOWN');
    assert.equal(explainErrno('constructor'), 'constructor');
    assert.equal(isErrno('toString'), false);
    // libuv's own: the end of a file.
    assert.equal(errnoOf(Object.assign(new Error('x'), {errno: -4095, code: 'EOF'})), 'EOF');
  });

  it('real errors of the kernel have Linux’s names where libuv has others', () => {
    assert.throws(
      () => openSync('/dev/null/x', 'r'),
      (error) => errnoOf(error) === 'ENOTDIR',
    );
    const file = openSync('/dev/full', 'w');
    try {
      assert.throws(
        () => writeSync(file, 'x'),
        (error) => errnoOf(error) === 'ENOSPC',
      );
    } finally {
      closeSync(file);
    }
    const {error} = spawnSync('/dev/null/nothing');
    assert.equal(errnoOf(error), 'ENOTDIR');
  });
});
