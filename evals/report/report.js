document.documentElement.classList.remove("no-js");
(() => {
  const chosen = { kind: "all", lang: "all" };
  const items = [...document.querySelectorAll(".items details")];
  const status = document.getElementById("shown");
  const update = () => {
    let count = 0;
    for (const item of items) {
      const keep = ["kind", "lang"].every((k) => chosen[k] === "all" || item.dataset[k] === chosen[k]);
      item.hidden = !keep;
      count += keep;
    }
    if (status) status.textContent = status.dataset.template.replace("#", count);
  };
  for (const button of document.querySelectorAll(".filters button")) {
    button.addEventListener("click", () => {
      const group = button.dataset.group;
      chosen[group] = button.dataset.value;
      for (const other of document.querySelectorAll(`.filters button[data-group=${group}]`))
        other.setAttribute("aria-pressed", String(other === button));
      update();
    });
  }
  // A figure that is wider than a small screen can be scrolled with the keyboard too.
  for (const figure of document.querySelectorAll("figure"))
    if (figure.scrollWidth > figure.clientWidth) figure.tabIndex = 0;
})();
