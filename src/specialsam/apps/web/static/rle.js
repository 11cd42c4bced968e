// COCO run lengths: column by column, a run of 0 first. Masks here are Uint8Array, row by row, 0 or 1.

/** The counts of a compressed run-length string. */
export function uncompressed(text) {
  const counts = [];
  for (let at = 0; at < text.length; ) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const code = text.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      more = (code & 32) !== 0;
      shift += 5;
      if (!more && code & 16) value |= -1 << shift;
    }
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
}

/** The compressed string of counts. */
export function compressed(counts) {
  let text = "";
  counts.forEach((count, place) => {
    let value = place > 2 ? count - counts[place - 2] : count;
    for (let more = true; more; ) {
      let code = value & 31;
      value >>= 5;
      more = code & 16 ? value !== -1 : value !== 0;
      text += String.fromCharCode((more ? code | 32 : code) + 48);
    }
  });
  return text;
}

/** The mask of {size: [height, width], counts}. */
export function decoded({ size: [height, width], counts }) {
  const mask = new Uint8Array(height * width);
  let at = 0, value = 0;
  for (const count of typeof counts === "string" ? uncompressed(counts) : counts) {
    if (value) for (let i = at; i < at + count; i++) mask[(i % height) * width + Math.floor(i / height)] = 1;
    at += count;
    value = 1 - value;
  }
  return mask;
}

/** The plain counts of a mask. */
export function countsOf(mask, height, width) {
  const counts = [];
  let value = 0, length = 0;
  for (let x = 0; x < width; x++)
    for (let y = 0; y < height; y++) {
      const here = mask[y * width + x];
      if (here === value) length++;
      else { counts.push(length); value = here; length = 1; }
    }
  counts.push(length);
  return counts;
}

/** {x0, y0, x1, y1} of the outermost pixels, inclusive, and the area; null for an empty mask. */
export function extent(mask, height, width) {
  let x0 = width, y0 = height, x1 = -1, y1 = -1, area = 0;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (mask[y * width + x]) {
        area++;
        if (x < x0) x0 = x;
        if (x > x1) x1 = x;
        if (y < y0) y0 = y;
        y1 = y;
      }
  return area ? { x0, y0, x1, y1, area } : null;
}

/** What is in any of the masks. */
export function union(masks, length) {
  const out = new Uint8Array(length);
  for (const mask of masks) for (let i = 0; i < length; i++) out[i] |= mask[i];
  return out;
}
