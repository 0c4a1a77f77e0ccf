// Run by tests/test_notebook.py in the page of a notebook: replaces the page by what it measured of the reports.
const luminance = (colour) => {
  const parts = colour.match(/[\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= .03928 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
  return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
};
const backdrop = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\)$/.test(colour) && colour !== "transparent") return colour;
  }
  return "rgb(255, 255, 255)";
};
const contrast = (node) => {
  const [low, high] = [getComputedStyle(node).color, backdrop(node)].map(luminance).sort((a, b) => a - b);
  return (high + .05) / (low + .05);
};
const reports = [...document.querySelectorAll(".onnxtool-report")];
const texts = reports.flatMap((report) => [...report.querySelectorAll("h1, h2, h3, td, th, p, dt, dd, li, summary, .chip")])
  .filter((node) => node.innerText);
const look = (node) => {
  const style = getComputedStyle(node);
  return [style.color, style.fontSize, style.padding, style.borderBottom, style.textAlign, style.backgroundColor].join();
};
const frame = document.querySelector("table.dataframe td");
const before = look(frame);
const rows = [...document.querySelectorAll(".onnxtool-report tbody tr")].map((row) => getComputedStyle(row).backgroundColor);
const found = {
  reports: reports.length,
  charts: document.querySelectorAll(".onnxtool-report svg").length,
  backdrop: backdrop(reports[0]),
  contrast: Math.min(...texts.map(contrast)),
  rows: [...new Set(rows)],
  wide: reports.filter((report) => report.scrollWidth > report.clientWidth + 1).length,
};
document.querySelectorAll(".onnxtool-report style").forEach((style) => style.remove());
found.leaks = look(frame) !== before;
document.documentElement.innerHTML = "<pre id=found>" + JSON.stringify(found) + "</pre>";
