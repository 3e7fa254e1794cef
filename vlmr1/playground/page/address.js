// What the address keeps of what is shown: the view, the group, the filters. So a reload, a shared link and Back find it.

/** The address's parts, a copy. */
export const kept = () => new URLSearchParams(location.search);

/** Put parts into the address, empty ones out of it; as a step that Back undoes, or `quietly` in place of the present. */
export function keep(parts, quietly = false) {
  const now = kept();
  for (const [name, value] of Object.entries(parts)) {
    if (value) now.set(name, value);
    else now.delete(name);
  }
  const address = now.size ? `?${now}` : "";
  if (address === location.search) return;
  history[quietly ? "replaceState" : "pushState"](null, "", location.pathname + address);
}
