import type {PresentDevice, RecordedCard, Whereabouts} from './locate.js';

/** What is known of a card, in one line: `id 10de:1b80, subsystem 1043:8599, path 0000:00/01.1/00.0`. */
export function describeIdentity({
  id,
  identity,
}: Pick<RecordedCard | PresentDevice, 'id' | 'identity'>): string {
  const {subsystem, path, serial} = identity;
  return [
    `id ${id}`,
    ...(subsystem === undefined ? [] : [`subsystem ${subsystem}`]),
    ...(path === undefined ? [] : [`path ${path}`]),
    ...(serial === undefined ? [] : [`serial ${serial}`]),
  ].join(', ');
}

/** Where a card is that is not in its recorded slot; undefined if nothing is known of it. */
export function describePlace({kind, slot, candidates}: Whereabouts): string | undefined {
  if (kind === 'superseded') return `outdated: the card now has the record of ${slot ?? ''}`;
  if (slot !== undefined) return `the recorded card is in ${slot}`;
  return candidates.length === 0 ? undefined : `the recorded card may be in ${candidates.join(' or ')}`;
}
