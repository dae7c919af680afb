// A stack as a line of places: one for each frame of each of its images.

export class Stack {
  constructor(data) {
    this.key = data.key;
    this.label = data.label;
    this.prior = Boolean(data.prior);
    this.modality = data.modality || "";
    this.images = data.images;
    this.length = 0;
    for (let index = 0; index < this.images.length; index++) this.length += this.framesOf(index);
  }

  framesOf(index) {
    return this.images[index].frames || 1;
  }

  /** { index, image, frame } of a place; beyond the ends, the last one there. */
  at(slot) {
    let left = Math.max(0, slot);
    for (let index = 0; index < this.images.length; index++) {
      const frames = this.framesOf(index);
      if (left < frames) return { index, image: this.images[index], frame: left };
      left -= frames;
    }
    const index = this.images.length - 1;
    if (index < 0) return null;
    return { index, image: this.images[index], frame: this.framesOf(index) - 1 };
  }

  /** The place of an image's frame, -1 if the image is not of this stack. */
  slotOf(imageId, frame = 0) {
    let slot = 0;
    for (let index = 0; index < this.images.length; index++) {
      const frames = this.framesOf(index);
      if (this.images[index].id === imageId) return slot + Math.min(frame, frames - 1);
      slot += frames;
    }
    return -1;
  }

  /**
   * Where another stack is when that one is at `slot`: the nearest slice position where both give
   * them, else the same part of the way.
   */
  alike(slot, other) {
    const position = this.at(slot)?.image.position;
    if (position !== undefined && position !== null && other.positioned) {
      let best = 0;
      let least = Infinity;
      for (let index = 0; index < other.images.length; index++) {
        const off = Math.abs(other.images[index].position - position);
        if (off < least) [least, best] = [off, index];
      }
      return other.slotOf(other.images[best].id);
    }
    const span = this.length - 1;
    return span > 0 ? Math.round((slot / span) * (other.length - 1)) : 0;
  }

  get positioned() {
    return this.images.length > 1 && this.images.every((one) => Number.isFinite(one.position));
  }
}

/** The places to fetch around `slot`: the nearest first, two ahead for each one behind. */
export function around(slot, length, direction, most) {
  const list = [];
  let ahead = slot + direction;
  let behind = slot - direction;
  const within = (place) => place >= 0 && place < length;
  while (list.length < most && (within(ahead) || within(behind))) {
    for (let step = 0; step < 2 && within(ahead); step++, ahead += direction) list.push(ahead);
    if (within(behind)) list.push(behind);
    behind -= direction;
  }
  return list.slice(0, most);
}
