import assert from 'node:assert/strict';
import {DEVICES} from '../../vm/devices.js';
import type {ContractArea} from '../machine.js';
import {attribute, driverOf, drivers, edu, give, nic, refused, write} from './pci.js';

const rescan = '/sys/bus/pci/rescan';
const {display, displayAudio} = DEVICES;

export const inUse: ContractArea = {
  title: 'a device that is open through VFIO',
  cases: [
    {
      title: 'is unbound when it is closed; until then all writes to it wait, but not those to other devices',
      check: async (on) => {
        await give(on, nic, 'vfio-pci');
        const close = await on.hold(nic);
        const unbind = await on.writeForever(`${drivers}/vfio-pci/unbind`, nic);
        // Its links are removed, but it is not unbound yet.
        assert.equal(await driverOf(on, nic), undefined);
        assert.deepEqual((await on.events()).slice(-1), [`bind pci ${nic}`]);
        const clear = await on.writeForever(attribute(nic, 'driver_override'), '\n');
        await write(on, [attribute(edu, 'driver_override'), 'none']);
        await close();
        assert.equal(await unbind.returned(), 'ok');
        assert.equal(await clear.returned(), 'ok');
        assert.deepEqual((await on.events()).slice(-1), [`unbind pci ${nic}`]);
      },
    },
    {
      title: 'blocks every removal and scan while its removal waits',
      check: async (on) => {
        await give(on, nic, 'vfio-pci');
        const close = await on.hold(nic);
        const removal = await on.writeForever(attribute(nic, 'remove'), '1');
        const scan = await on.writeForever(rescan, '1');
        await close();
        assert.equal(await removal.returned(), 'ok');
        assert.equal(await scan.returned(), 'ok');
        await write(on, [rescan, '1']);
        assert.equal(await driverOf(on, nic), 'e1000e');
      },
    },
    {
      title: 'prevents host drivers from binding the other devices of its group',
      check: async (on) => {
        await give(on, display.slot, 'vfio-pci');
        await write(on, [`${drivers}/${displayAudio.driver}/unbind`, displayAudio.slot]);
        const close = await on.hold(display.slot);
        await refused(on, 'EBUSY', `${drivers}/${displayAudio.driver}/bind`, displayAudio.slot);
        await close();
        await write(on, [`${drivers}/${displayAudio.driver}/bind`, displayAudio.slot]);
      },
    },
  ],
};
