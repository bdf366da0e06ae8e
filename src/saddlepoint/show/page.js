"use strict";
{
  document.documentElement.classList.add("scripted");

  // Charts: each panel is drawn when it comes near the screen.
  const font = { family: getComputedStyle(document.querySelector("nav")).fontFamily, size: 11, color: "#222222" };
  const axis = { gridcolor: "rgba(128, 128, 128, 0.22)", linecolor: "#888888", zeroline: false, automargin: true, tickangle: 0 };
  const touch = matchMedia("(pointer: coarse)").matches;

  const draw = (panel) => {
    const { data, layout } = JSON.parse(panel.querySelector("script").textContent);
    const images = panel.parentElement.classList.contains("images");
    const nticks = panel.clientWidth < 250 ? 4 : 7;
    for (const name of ["xaxis", "yaxis"]) layout[name] = { ...axis, nticks, ...layout[name] };
    return Plotly.newPlot(
      panel.querySelector(".plot"),
      data,
      {
        ...layout,
        font,
        margin: images ? { l: 0, r: 0, t: 0, b: 0 } : { l: 30, r: 8, t: 8, b: 30 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        dragmode: touch || images ? false : "zoom", // a finger scrolls the page
      },
      { responsive: true, displayModeBar: false },
    );
  };

  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: "400px" },
  );
  for (const panel of document.querySelectorAll(".panel")) near.observe(panel);

  // What is behind a number: shown on hover and focus, kept by a click or a tap until the next one or Escape.
  const sheet = matchMedia("(max-width: 40rem)"); // as in page.css
  let shown = null;
  let kept = false;

  const place = () => {
    if (!shown) return;
    const card = shown.nextElementSibling;
    const cell = shown.getBoundingClientRect();
    const below = cell.bottom + 6;
    const top = below + card.offsetHeight <= innerHeight - 8 ? below : cell.top - card.offsetHeight - 6;
    card.style.top = `${Math.max(8, top)}px`;
    card.style.left = `${Math.max(8, Math.min(cell.left, document.documentElement.clientWidth - card.offsetWidth - 8))}px`;
  };

  // Where the card is a sheet at the bottom of the screen, the number stays in sight above it.
  const uncover = () => {
    const below = shown.getBoundingClientRect().bottom + 8 - shown.nextElementSibling.getBoundingClientRect().top;
    if (sheet.matches && below > 0) scrollBy(0, below);
  };

  const hide = () => {
    if (!shown) return;
    shown.nextElementSibling.hidePopover();
    shown.setAttribute("aria-expanded", "false");
    shown = null;
    kept = false;
  };

  const show = (cell) => {
    if (shown === cell) return;
    hide();
    shown = cell;
    cell.nextElementSibling.showPopover();
    cell.setAttribute("aria-expanded", "true");
    place();
  };

  for (const cell of document.querySelectorAll("button.cell")) {
    cell.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse" && !kept) show(cell);
    });
    cell.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && !kept) hide();
    });
    cell.addEventListener("focus", () => {
      if (cell.matches(":focus-visible")) show(cell);
    });
    cell.parentElement.addEventListener("focusout", (event) => {
      if (!kept && !cell.parentElement.contains(event.relatedTarget)) hide();
    });
    cell.addEventListener("click", () => {
      const again = shown === cell && kept;
      hide();
      if (again) return;
      show(cell);
      uncover();
      kept = true;
    });
  }
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest("button.cell, .detail")) hide();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
  addEventListener("scroll", place, { capture: true, passive: true });
  addEventListener("resize", place);

  // On a phone the contents would fill the screen.
  if (matchMedia("(max-width: 64rem)").matches) document.querySelector("nav details").open = false;
}
