"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const seconds = data.seconds;
  const video = document.querySelector(".screen video");
  const output = document.querySelector("output");
  const follow = document.getElementById("follow");
  const plots = [...document.querySelectorAll(".plot")];
  const isTouch = matchMedia("(pointer: coarse)").matches;
  // The clock of the video's player against that of the track; measured with the first picture where that is possible.
  let shift = seconds[0] - data.firstSeconds;
  let shown = -1;

  /* Frames */

  const frameAt = (moment) => {
    let low = 0, high = seconds.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (seconds[middle] <= moment + 1e-4) low = middle; else high = middle - 1;
    }
    return low;
  };
  const lasts = (frame) => (frame + 1 < seconds.length ? seconds[frame + 1] : data.endSeconds) - seconds[frame];
  const clock = (moment) => {
    const minutes = Math.floor(moment / 60);
    return `${minutes}:${(moment - 60 * minutes).toFixed(2).padStart(5, "0")}`;
  };

  const show = (frame) => {
    if (frame === shown) return;
    shown = frame;
    const people = data.status.map((row, person) => {
      const word = data.words[Number(row[frame])];
      const residual = data.residual[person][frame];
      const name = data.status.length > 1 ? `person ${person}: ` : "";
      return name + word + (residual === null ? "" : `, residual ${residual.toFixed(2)} %`);
    });
    const number = document.createElement("b");
    number.textContent = `${clock(seconds[frame])} · frame ${data.numbers[frame]}`;
    output.replaceChildren(number, " · " + people.join(" · "));
    plots.forEach(placeCursor);
  };

  const seek = (frame) => {
    const wanted = Math.min(Math.max(frame, 0), seconds.length - 1);
    // A moment well inside the frame: the player's own rounding cannot end in the one before.
    if (video) video.currentTime = Math.max(0, seconds[wanted] - shift + Math.min(0.3 * lasts(wanted), 0.02));
    show(wanted);
  };

  /* Plots */

  const inPlot = (plot, clientX) => {
    const box = plot.getBoundingClientRect();
    const width = box.width - data.marginLeft - data.marginRight;
    const share = (clientX - box.left - data.marginLeft) / width;
    return share < 0 || share > 1 ? null : plot.range[0] + share * (plot.range[1] - plot.range[0]);
  };
  const placeCursor = (plot) => {
    const cursor = plot.querySelector(".cursor");
    const [first, last] = plot.range;
    const share = (seconds[Math.max(shown, 0)] - first) / (last - first);
    cursor.style.display = share >= 0 && share <= 1 ? "block" : "none";
    const width = plot.clientWidth - data.marginLeft - data.marginRight;
    cursor.style.left = `${data.marginLeft + share * width}px`;
  };
  const inks = () => {
    const style = getComputedStyle(document.documentElement);
    return { ink: style.getPropertyValue("--ink").trim(), card: style.getPropertyValue("--card").trim() };
  };
  const looks = () => {
    const { ink, card } = inks();
    return { "font.color": ink, "hoverlabel.bgcolor": card, "hoverlabel.font.color": ink };
  };

  let isPassingOn = false;
  const passOn = (from) => {
    const range = from.querySelector(".js-plotly-plot").layout.xaxis.range.map(Number);
    from.range = range;
    placeCursor(from);
    if (isPassingOn) return;
    isPassingOn = true;
    const others = plots.filter((plot) => plot !== from && plot.isDrawn);
    Promise.all(others.map((plot) => Plotly.relayout(plot.firstElementChild, { "xaxis.range": [...range] })))
      .finally(() => { isPassingOn = false; });
  };

  const draw = async (plot) => {
    const element = plot.firstElementChild;
    const figure = JSON.parse(document.getElementById(`figure-${plot.dataset.key}`).textContent);
    const { ink, card } = inks();
    figure.layout.font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink };
    figure.layout.hoverlabel = { bgcolor: card, bordercolor: "rgba(128,132,140,0.5)", font: { color: ink } };
    // A finger scrolls the page.
    if (isTouch) figure.layout.dragmode = false;
    const drawn = plots.find((each) => each.isDrawn);
    if (drawn) { plot.range = [...drawn.range]; figure.layout.xaxis.range = [...drawn.range]; }
    await Plotly.newPlot(element, figure.data, figure.layout, {
      responsive: true, displayModeBar: false, doubleClick: "reset", scrollZoom: false,
    });
    plot.isDrawn = true;
    element.on("plotly_relayout", () => passOn(plot));
    placeCursor(plot);
  };

  plots.forEach((plot) => {
    plot.range = [seconds[0], data.endSeconds];
    let pressed = null;
    plot.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; }, true);
    // On the window: while a button is down the plots put something of their own under the pointer.
    addEventListener("pointerup", (event) => {
      if (!pressed) return;
      const moved = Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]);
      pressed = null;
      const moment = moved < 5 ? inPlot(plot, event.clientX) : null;
      if (moment !== null) { video?.pause(); seek(frameAt(moment)); }
    }, true);
    plot.addEventListener("pointermove", (event) => {
      if (!follow?.checked || event.pointerType !== "mouse" || event.buttons) return;
      const moment = inPlot(plot, event.clientX);
      if (moment !== null) glide(frameAt(moment));
    });
  });

  let wantedFrame = null;
  const glide = (frame) => {
    if (!video || !video.seeking) { seek(frame); return; }
    wantedFrame = frame;
  };

  document.querySelectorAll("button.key").forEach((key) => {
    key.addEventListener("click", () => {
      const isOn = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", String(isOn));
      const plot = plots.find((each) => each.dataset.key === key.dataset.plot);
      Plotly.restyle(plot.firstElementChild, { visible: isOn }, [Number(key.dataset.trace)]);
    });
  });

  /* Clip */

  if (video) {
    const text = atob(document.getElementById("clip-data").textContent.trim());
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    video.src = URL.createObjectURL(new Blob([bytes], { type: data.mime }));
    const moved = () => show(frameAt(video.currentTime + shift));
    if (video.requestVideoFrameCallback) {
      let isFirst = true;
      const presented = (_now, picture) => {
        if (isFirst && video.currentTime < 1e-3) shift = seconds[0] - picture.mediaTime;
        isFirst = false;
        show(frameAt(picture.mediaTime + shift));
        video.requestVideoFrameCallback(presented);
      };
      video.requestVideoFrameCallback(presented);
    } else {
      const tick = () => { moved(); if (!video.paused) requestAnimationFrame(tick); };
      video.addEventListener("play", tick);
      video.addEventListener("timeupdate", moved);
    }
    video.addEventListener("seeked", () => {
      if (wantedFrame === null) return;
      const frame = wantedFrame;
      wantedFrame = null;
      seek(frame);
    });
  }
  document.querySelectorAll("[data-step]").forEach((button) => {
    button.addEventListener("click", () => { video?.pause(); seek(Math.max(shown, 0) + Number(button.dataset.step)); });
  });
  document.querySelectorAll("[data-frame]").forEach((button) => {
    button.addEventListener("click", () => {
      video?.pause();
      seek(Number(button.dataset.frame));
      const screen = document.querySelector(".screen");
      const box = screen?.getBoundingClientRect();
      if (box && (box.bottom < 60 || box.top > innerHeight - 60)) screen.scrollIntoView({ block: "start" });
    });
  });

  /* Plots below the fold are drawn when they come near: a page of many people opens at once. */
  const watcher = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      watcher.unobserve(entry.target);
      draw(entry.target);
    });
  }, { rootMargin: "600px" });
  plots.forEach((plot) => watcher.observe(plot));
  addEventListener("resize", () => plots.forEach(placeCursor));
  addEventListener("beforeprint", () => plots.filter((plot) => !plot.isDrawn).forEach(draw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    plots.filter((plot) => plot.isDrawn).forEach((plot) => Plotly.relayout(plot.firstElementChild, looks()));
  });
  show(0);
})();
