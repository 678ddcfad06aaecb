// A fit as it goes on: asks this page's own server once a second, and shows what is new.

const at = (id) => document.getElementById(id);
let step = -1;

async function look() {
  try {
    const record = await (await fetch("progress.json", { cache: "no-store" })).json();
    at("told").textContent = record.words;
    if (record.step !== step) {
      step = record.step;
      at("picture").src = `picture.png?${step}`;
      at("curve").innerHTML = await (await fetch("curve.svg", { cache: "no-store" })).text();
    }
    if (record.done) return;
  } catch {
    at("told").textContent = `${at("told").textContent} (the fit has ended, or its process has)`;
    return;
  }
  setTimeout(look, 1000);
}

look();
