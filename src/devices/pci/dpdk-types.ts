// Written by `make update-device-types`; do not edit.
import type {DpdkType, TypeRule} from './device-type.js';

/** Where the tables are from. */
export const dpdkSource = {
  file: 'usertools/dpdk-devbind.py',
  version: '24.11.8',
  package: 'dpdk 24.11.8-0+deb13u1 of Debian',
  license: 'BSD-3-Clause',
  copyright: 'Copyright(c) 2010-2014 Intel Corporation',
} as const;

/** The devices of each type, by the words of `dpdk-devbind.py --status-dev`. */
export const dpdkTypes: Readonly<Record<DpdkType, readonly TypeRule[]>> = {
  net: [
    {class: '02'},
    {class: '08', vendor: '177d', devices: ['a0dd', 'a049']},
    {class: '05', vendor: '1af4', devices: ['1110']},
    {class: '12', vendor: '8086', devices: ['0b30']},
  ],
  baseband: [{class: '12'}],
  crypto: [{class: '10'}, {class: '0b', vendor: '8086'}],
  dma: [
    {class: '08', vendor: '177d', devices: ['a081']},
    {class: '08', vendor: '19e5', devices: ['a122']},
    {class: '08', vendor: '8086', devices: ['11fb']},
    {class: '08', vendor: '8086', devices: ['1212']},
    {class: '08', vendor: '8086', devices: ['0b25']},
    {
      class: '08',
      vendor: '8086',
      devices: ['6f20', '6f21', '6f22', '6f23', '6f24', '6f25', '6f26', '6f27', '6f2e', '6f2f'],
    },
    {class: '08', vendor: '8086', devices: ['0b00']},
    {class: '08', vendor: '8086', devices: ['2021']},
    {class: '08', vendor: '177d', devices: ['a08c']},
  ],
  event: [
    {class: '08', vendor: '177d', devices: ['a04b', 'a04d']},
    {class: '08', vendor: '177d', devices: ['a051']},
    {class: '0b', vendor: '8086', devices: ['270b', '2710', '2714']},
    {class: '08', vendor: '177d', devices: ['a0f9', 'a0fa']},
  ],
  mempool: [
    {class: '08', vendor: '177d', devices: ['a053']},
    {class: '08', vendor: '177d', devices: ['a0fb', 'a0fc']},
  ],
  compress: [{class: '12', vendor: '177d', devices: ['a037']}],
  regex: [{class: '08', vendor: '177d', devices: ['a0f4']}],
  ml: [{class: '08', vendor: '177d', devices: ['a092']}],
  misc: [
    {class: '08', vendor: '177d', devices: ['a089']},
    {class: '08', vendor: '177d', devices: ['a059', 'a060']},
    {class: '08', vendor: '177d', devices: ['a0f0', 'a0f1']},
    {class: '06', vendor: '8086', devices: ['201c']},
    {class: '06', vendor: '8086', devices: ['347e']},
    {class: '01', vendor: '1af4', devices: ['1001', '1042']},
  ],
};
