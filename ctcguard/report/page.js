"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map();  // plot element to what draws it again, in the colours of the moment
  const config = {displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "sendDataToCloud"]};

  const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  function themed(layout) {
    const axis = {gridcolor: colour("grid"), zerolinecolor: colour("line"), linecolor: colour("line"), tickcolor: colour("line"), automargin: true};
    const whole = {...layout, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {color: colour("ink"), size: 12, family: getComputedStyle(document.body).fontFamily},
      hoverlabel: {bgcolor: colour("card"), bordercolor: colour("line"), font: {color: colour("ink")}, align: "left"},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: colour("soft"), activecolor: colour("ink")}};
    for (const name of Object.keys(layout)) if (/^[xy]axis/.test(name)) whole[name] = {...axis, ...layout[name]};
    return whole;
  }

  // ---- the timeline

  function drawTimeline() {
    const plot = document.getElementById("timeline-plot");
    plot.hidden = !data.timeline;
    if (!data.timeline) return;
    const severities = ["information", "warning", "error"], symbols = ["circle", "diamond", "x"];
    const traces = data.timeline.data.map(trace => {
      if (trace.meta === "findings") {
        return {...trace, marker: {...trace.marker, color: trace.y.map(y => colour(severities[y])), symbol: trace.y.map(y => symbols[y])}};
      }
      const own = colour(trace.meta === "lost" ? "error" : trace.meta);
      return {...trace, line: {color: own, width: 1.8}, marker: {...trace.marker, color: own}};
    });
    const shapes = data.timeline.layout.shapes.map(shape => ({...shape, line: {color: colour("error"), width: 1, dash: "dot"}}));
    const annotations = data.timeline.titles.map(([title, names], i) => ({
      text: title + (names.length > 1 ? ": " + names.map((name, k) => `<b style="color:${colour("curve" + k)}">${name}</b>`).join(" · ") : ""),
      xref: "paper", x: 0, xanchor: "left", yref: `y${i ? i + 1 : ""} domain`, y: 1, yanchor: "bottom", yshift: 2, showarrow: false, bgcolor: colour("card"),
      font: {size: 12, color: colour("soft")}}));
    const layout = themed({...data.timeline.layout, shapes, annotations, margin: {l: 64, r: 20, t: 34, b: 46}});
    Plotly.react(plot, traces, layout, config);
    drawn.set(plot, drawTimeline);
  }

  // ---- the posteriorgrams

  function unpacked(text, rows, columns, [low, high, levels]) {
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)), view = new DataView(bytes.buffer);
    return Array.from({length: rows}, (_, row) => Array.from({length: columns}, (_, column) => {
      const level = view.getUint16(2 * (row * columns + column), true);
      return level > levels ? null : level === 0 ? 0 : Math.exp(low + (high - low) * level / levels);
    }));
  }

  const number = p => p === null ? "NaN" : p === 0 ? "0" : p >= 0.001 && p < 1e4 ? p.toPrecision(3) : p.toExponential(2);

  function posteriorgram(block) {
    const figure = data.posteriorgrams[block.dataset.figure];
    const plot = block.querySelector(".plot"), [slider, output] = [block.querySelector("input"), block.querySelector("output")];
    const rows = figure.classes.length, labels = figure.classes.map(([, shown]) => shown);
    const views = figure.views.map(view => ({title: view.title, z: unpacked(view.data, rows, figure.frames, figure.scale)}));
    let current = 0;

    function draw() {
      const z = views[current].z;
      let top = 0;
      for (const row of z) for (const p of row) if (p > top) top = p;
      top = Math.min(1, top || 1);
      const frames = Array.from({length: figure.frames}, (_, t) => t);
      const heat = {type: "heatmap", z, x: frames, y: labels.map((_, i) => i), zmin: 0, zmax: top, xgap: 0, ygap: rows > 40 ? 0 : 1,
        text: labels.map(shown => frames.map(() => shown)), colorscale: [[0, colour("low")], [1, colour("high")]],
        customdata: z.map(row => row.map(number)),
        hovertemplate: "frame %{x} · %{text}<br>probability %{customdata}<extra></extra>",
        colorbar: {title: {text: "probability", side: "right"}, thickness: 12, nticks: 5, outlinewidth: 0}};
      const traces = [heat];
      if (figure.path) traces.push({type: "scatter", mode: "lines", name: "best alignment", x: frames, y: figure.path, hoverinfo: "skip",
        line: {color: colour("path"), width: 2, shape: "hvh"}});
      const every = Math.max(1, Math.ceil(rows / 48));
      const ticks = labels.map((_, i) => i).filter(i => i % every === 0);
      const layout = themed({height: Math.min(760, Math.max(250, 90 + 15 * rows)), margin: {l: 60, r: 10, t: 24, b: 44}, showlegend: Boolean(figure.path),
        legend: {orientation: "h", x: 0, y: 1, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)"},
        xaxis: {title: {text: "frame"}, range: [-0.5, figure.frames - 0.5], showgrid: false, zeroline: false},
        yaxis: {tickvals: ticks, ticktext: ticks.map(i => labels[i]), range: [-0.5, rows - 0.5], showgrid: false, zeroline: false, tickfont: {size: 11}}});
      Plotly.react(plot, traces, layout, config);
      drawn.set(plot, draw);
    }

    function read() {
      const t = Number(slider.value), z = views[current].z;
      const ranked = figure.classes.map(([index, , name], row) => ({index, name, p: z[row][t]})).sort((a, b) => (b.p ?? -1) - (a.p ?? -1));
      const best = ranked.slice(0, 3).map(({name, p}) => `${name} ${number(p)}`).join(", ");
      const aligned = figure.path && figure.path[t] !== null ? `; alignment: ${figure.classes[figure.path[t]][2]}` : "";
      output.textContent = `frame ${t}: ${best}${aligned}`;
    }

    if (views.length > 1) {
      block.querySelector(".views").replaceChildren(...views.map((view, i) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = view.title;
        button.setAttribute("aria-pressed", String(i === 0));
        button.addEventListener("click", () => {
          current = i;
          for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
          draw();
          read();
        });
        return button;
      }));
    }
    block.querySelector(".left-out").textContent = figure.left_out.join("; ");
    if (!figure.frames) {
      block.querySelector(".reader").remove();
      plot.replaceChildren();
      plot.style.minHeight = "0";
      return;
    }
    slider.max = figure.frames - 1;
    slider.addEventListener("input", read);
    draw();
    plot.on("plotly_hover", event => { slider.value = event.points[0].x; read(); });
    read();
  }

  const waiting = new Set(document.querySelectorAll(".posteriorgram"));
  function show(block) {
    if (waiting.delete(block)) posteriorgram(block);
  }
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); show(entry.target); }
  }, {rootMargin: "600px"});

  // ---- the table of findings

  function filter() {
    const [text, severity, code] = ["text", "severity", "code"].map(name => document.getElementById("filter-" + name).value);
    const words = text.toLowerCase().split(/\s+/).filter(Boolean), rows = document.querySelectorAll("#findings tbody tr");
    let count = 0;
    for (const row of rows) {
      const {severity: s, code: c, search} = row.dataset;
      const shown = (!severity || s === severity) && (!code || c === code) && words.every(word => search.includes(word));
      row.hidden = !shown;
      count += shown;
    }
    document.getElementById("filter-count").textContent = `${count} of ${rows.length} findings`;
  }

  // ---- the page

  function openTarget() {
    const target = location.hash.startsWith("#rule-") && document.getElementById(location.hash.slice(1));
    if (target) { target.open = true; target.scrollIntoView(); }
  }

  drawTimeline();
  for (const block of waiting) seen.observe(block);
  const form = document.querySelector("form.filter");
  if (form) {
    form.addEventListener("input", filter);
    form.addEventListener("submit", event => event.preventDefault());
  }
  addEventListener("hashchange", openTarget);
  openTarget();
  dark.addEventListener("change", () => { for (const draw of [...drawn.values()]) draw(); });
  addEventListener("beforeprint", () => {
    for (const block of [...waiting]) show(block);
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
