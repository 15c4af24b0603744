// Photographs to step through, with the response predicted to each.

function openPhotographs(app, photographs, map, find) {
  const section = find("photographs");
  if (!photographs) return { current: () => null, step: () => {}, set: () => {}, index: () => -1 };
  section.hidden = false;
  const picture = find("photograph");
  let index = -1;

  function set(wanted, show = true) {
    const count = photographs.names.length;
    index = ((wanted % count) + count) % count;
    setPhotograph(map, index);
    picture.src = photographs.thumbnails[index];
    picture.alt = photographs.names[index];
    find("photograph-name").textContent = `${index + 1} of ${count} · ${photographs.names[index]}`;
    if (show) app.show(map.name);
  }

  find("previous").onclick = () => set(index - 1);
  find("next").onclick = () => set(index + 1);
  picture.onload = () => app.refreshCard();
  set(0, false);
  return { current: () => (picture.complete && picture.naturalWidth ? picture : null), step: (by) => set(index + by), set, index: () => index };
}
