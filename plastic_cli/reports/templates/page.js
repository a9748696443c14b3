// The values of the point that is closest to the pointer or to a touch.
{
  const reach = 28;
  const note = document.createElement("div");
  note.className = "value-note";
  note.hidden = true;
  document.body.append(note);
  for (const drawing of document.querySelectorAll(".plot svg")) {
    const circles = [...drawing.querySelectorAll(".values circle")];
    // The browser's own note comes late and not at all on a touch screen.
    circles.forEach((circle) => { circle.value = circle.textContent; circle.replaceChildren(); });
    const leave = () => { note.hidden = true; circles.forEach((circle) => circle.classList.remove("near")); };
    const point = (event) => {
      let nearest = null;
      let least = reach;
      for (const circle of circles) {
        const box = circle.getBoundingClientRect();
        const distance = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
        if (distance < least) { least = distance; nearest = circle; }
      }
      leave();
      if (nearest === null) return;
      nearest.classList.add("near");
      note.textContent = nearest.value;
      note.hidden = false;
      const box = nearest.getBoundingClientRect();
      const left = Math.min(Math.max(8, box.x + box.width / 2 - note.offsetWidth / 2), innerWidth - note.offsetWidth - 8);
      const above = box.y - note.offsetHeight - 8;
      note.style.translate = `${left + scrollX}px ${(above < 0 ? box.y + box.height + 8 : above) + scrollY}px`;
    };
    if (circles.length > 0) {
      drawing.addEventListener("pointermove", point);
      drawing.addEventListener("pointerdown", point);
      drawing.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
    }
  }
}
