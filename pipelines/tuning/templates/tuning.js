"use strict";
(() => {
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue(name).trim();
  };
  const dressed = (value, colour) => {
    if (typeof value === "string") return value.replace(/^var\((--\w+)\)$/, (_, name) => colour(name));
    if (Array.isArray(value)) return value.map((one) => dressed(one, colour));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, dressed(one, colour)]));
  };
  const draw = () => {
    const colour = colours();
    for (const script of document.querySelectorAll("script[data-plot]")) {
      const spec = dressed(JSON.parse(script.textContent), colour);
      const layout = {
        height: 320, autosize: true, dragmode: false, margin: { l: 8, r: 16, t: 12, b: 8 },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: colour("--muted"), family: getComputedStyle(document.body).fontFamily, size: 12 },
        hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--rule"), font: { color: colour("--ink") } },
        ...spec.layout,
      };
      Plotly.react(script.dataset.plot, spec.data, layout, { responsive: true, displayModeBar: false, showTips: false });
    }
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
