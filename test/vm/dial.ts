import {connect, type Socket} from 'node:net';
import {setTimeout as sleep} from 'node:timers/promises';

/** Connects to one of QEMU's sockets. The end of the connection is not reported, because QEMU's exit is. */
export async function dial(socket: string, heard: (data: Buffer) => void): Promise<Socket> {
  for (let tries = 0; ; tries++) {
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const connection = connect(socket);
        connection.once('error', reject);
        connection.once('connect', () => {
          connection.off('error', reject).on('error', () => undefined);
          connection.on('data', heard);
          resolve(connection);
        });
      });
    } catch (error) {
      // QEMU creates the file shortly before it listens.
      if (tries > 100) throw error;
      await sleep(20);
    }
  }
}
