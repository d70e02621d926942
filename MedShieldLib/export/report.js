// Sliders through the slices, and switches for outlines and fill. Without this script the page shows one slice
// of each plane and everything else.
"use strict";

for (const plane of document.querySelectorAll(".plane")) {
  const frames = [...plane.querySelectorAll(".frame")];
  const slider = plane.querySelector("input[type=range]");
  const key = Number(slider.value);
  const show = () => {
    const chosen = Number(slider.value);
    frames.forEach((frame, index) => { frame.hidden = index !== chosen; });
    slider.setAttribute("aria-valuetext", frames[chosen].dataset.place);
  };
  slider.addEventListener("input", show);
  plane.querySelector("button").addEventListener("click", () => { slider.value = key; show(); });
  plane.querySelector(".browse").hidden = frames.length < 2;
}

for (const box of document.querySelectorAll("[data-switch]")) {
  box.addEventListener("change", () => document.body.classList.toggle(box.dataset.switch, !box.checked));
}
document.querySelector(".switches").hidden = false;
