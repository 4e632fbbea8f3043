import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host} from '../host/host.js';
import {planNoIommu, readNoIommu, type NoIommuRequest} from '../plan/switch/no-iommu.js';

/** What is locked while the mode is changed. */
const lock = 'no-iommu';

/**
 * Turns no-IOMMU mode of VFIO on or off.
 * @throws PearasysError the refusal, `other-devices` if devices are affected and that was not accepted; what failed.
 */
export async function setNoIommu(
  host: Host,
  request: NoIommuRequest,
  options: CarryOutOptions,
): Promise<Outcome> {
  return await carryOut(host, [lock], () => planNoIommu(request, readNoIommu(host)), options);
}
