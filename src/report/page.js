'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const entries = [...document.querySelectorAll('.entry')];
  if (entries.length === 0) return;
  const from = document.getElementById('from');
  const to = document.getElementById('to');
  const difference = document.getElementById('difference');
  const reduced = matchMedia('(prefers-reduced-motion: reduce)');
  document.documentElement.classList.add('scripted');

  // Elements are made of text alone: no name is ever read as HTML.
  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  // The time line: one stop of the Tab key; arrows move along it.
  const panels = [...document.querySelectorAll('.panel')];
  const choose = (index) => {
    entries.forEach((entry, at) => {
      entry.tabIndex = at === index ? 0 : -1;
      if (at === index) entry.setAttribute('aria-current', 'true');
      else entry.removeAttribute('aria-current');
    });
    panels.forEach((panel, at) => panel.classList.toggle('shown', at === index));
    const generations = data.generations;
    to.value = generations[index].number;
    from.value = generations[Math.min(index + 1, generations.length - 1)].number;
    compare();
  };
  const named = () => entries.findIndex((entry) => entry.hash === location.hash);
  addEventListener('hashchange', () => {
    if (named() >= 0) choose(named());
  });
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  document.querySelector('.days').addEventListener('keydown', (event) => {
    const step = steps[event.key];
    const at = entries.indexOf(document.activeElement);
    if (step === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const index = Math.min(entries.length - 1, Math.max(0, at + step));
    const next = entries[index];
    choose(index);
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: 'nearest', behavior: reduced.matches ? 'auto' : 'smooth' });
    // Not by `location`: that would scroll away from the time line, and fill the history.
    history.replaceState(null, '', next.hash);
  });

  // A graph begins at the left, in the middle.
  document.querySelectorAll('.full input').forEach((box) => box.addEventListener('change', () => {
    const graph = box.parentElement.nextElementSibling;
    graph.scrollTop = (graph.scrollHeight - graph.clientHeight) / 2;
  }));

  // What is in the images, as changes from one to the next.
  const contents = [];
  const apply = (map, changes) => {
    const next = new Map(map);
    for (const [name, value] of Object.entries(changes)) {
      if (value === null) next.delete(name);
      else next.set(name, value);
    }
    return next;
  };
  for (const change of data.contents) {
    const last = contents.at(-1) ?? { packages: new Map(), files: new Map() };
    contents.push({
      base: change.base,
      packages: apply(last.packages, change.packages),
      files: apply(last.files, change.files),
    });
  }
  const lines = (file) => {
    if (file === null || file === undefined) return [];
    const runs = data.files[file];
    const text = [];
    for (let at = 0; at < runs.length; at += 2) text.push(...data.lines.slice(runs[at], runs[at] + runs[at + 1]));
    if (text.at(-1) === '') text.pop();
    return text;
  };

  // The shortest edit script (Myers): [sign, line] of every line of both texts.
  const edits = (one, other) => {
    let start = 0;
    while (start < one.length && start < other.length && one[start] === other[start]) start += 1;
    let end = 0;
    while (end < one.length - start && end < other.length - start && one.at(-1 - end) === other.at(-1 - end)) end += 1;
    const a = one.slice(start, one.length - end);
    const b = other.slice(start, other.length - end);
    const middle = [];
    const trace = [];
    let reached = new Map([[1, 0]]);
    const most = Math.min(a.length + b.length, 1500);
    let found = -1;
    for (let d = 0; d <= most && found < 0; d += 1) {
      trace.push(new Map(reached));
      for (let k = -d; k <= d; k += 2) {
        let x = k === -d || (k !== d && reached.get(k - 1) < reached.get(k + 1)) ? reached.get(k + 1) : reached.get(k - 1) + 1;
        while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
        reached.set(k, x);
        if (x >= a.length && x - k >= b.length) { found = d; break; }
      }
    }
    if (found < 0) {
      middle.push(...a.map((line) => ['-', line]), ...b.map((line) => ['+', line]));
    } else {
      let x = a.length;
      let y = b.length;
      for (let d = found; d > 0; d -= 1) {
        const before = trace[d];
        const k = x - y;
        const down = k === -d || (k !== d && before.get(k - 1) < before.get(k + 1));
        const fromX = before.get(down ? k + 1 : k - 1);
        const fromY = fromX - (down ? k + 1 : k - 1);
        while (x > fromX && y > fromY && x > (down ? fromX : fromX + 1)) { x -= 1; y -= 1; middle.push([' ', a[x]]); }
        if (down) { y -= 1; middle.push(['+', b[y]]); } else { x -= 1; middle.push(['-', a[x]]); }
      }
      while (x > 0) { x -= 1; middle.push([' ', a[x]]); }
      middle.reverse();
    }
    const same = (line) => [' ', line];
    return [...one.slice(0, start).map(same), ...middle, ...one.slice(one.length - end).map(same)];
  };

  const around = 3;
  const changedLines = (one, other) => {
    const all = edits(one, other);
    const near = all.map(() => false);
    all.forEach(([sign], at) => {
      if (sign !== ' ') near.fill(true, Math.max(0, at - around), at + around + 1);
    });
    const box = element('pre', undefined, { class: 'lines', tabindex: '0' });
    let skipped = false;
    all.forEach(([sign, line], at) => {
      if (!near[at]) { skipped = true; return; }
      if (skipped && box.childElementCount > 0) box.append(element('span', '⋯', { class: 'gap' }));
      skipped = false;
      box.append(element({ '+': 'ins', '-': 'del', ' ': 'span' }[sign], line === '' ? ' ' : line));
    });
    return box;
  };

  const changes = (one, other, withValues) => {
    const names = [...new Set([...one.keys(), ...other.keys()])].sort();
    const list = element('ul');
    for (const name of names) {
      const was = one.get(name);
      const is = other.get(name);
      if (was === is) continue;
      const item = element('li');
      const value = (text) => (withValues ? ` ${text}` : '');
      if (was === undefined) item.append(element('ins', name + value(is)));
      else if (is === undefined) item.append(element('del', name + value(was)));
      else if (withValues) item.append(element('bdi', name), ' ', element('del', was), ' ', element('ins', is));
      else item.append(element('bdi', name));
      list.append(item);
    }
    return list;
  };
  const part = (title, list) => {
    if (list.childElementCount === 0) return;
    const many = list.childElementCount > 12;
    const box = element(many ? 'details' : 'div', undefined, { class: 'changes' });
    const heading = element(many ? 'summary' : 'h3', `${title} `);
    heading.append(element('span', String(list.childElementCount), { class: 'quiet' }));
    box.append(heading, list);
    difference.append(box);
  };

  const compare = () => {
    difference.replaceChildren();
    const find = (select) => data.generations.find((generation) => String(generation.number) === select.value);
    const one = find(from);
    const other = find(to);
    if (one === other) {
      difference.append(element('p', 'Choose two generations.', { class: 'quiet' }));
      return;
    }
    const images = [one, other].map((generation) => contents[generation.contents]);
    if (one.image !== other.image) {
      if (images[0] && images[1]) {
        if (images[0].base !== images[1].base) part('Base', changes(new Map([['base', images[0].base]]), new Map([['base', images[1].base]]), true));
        part('Packages', changes(images[0].packages, images[1].packages, true));
        part('Project files', changes(images[0].files, images[1].files, false));
      } else {
        difference.append(element('p', 'What is in one of the images was not recorded.', { class: 'quiet' }));
      }
    }
    const workflows = [...new Set([...Object.keys(one.dags), ...Object.keys(other.dags)])].sort();
    const files = workflows.filter((workflow) => {
      const [was, is] = [one.dags[workflow], other.dags[workflow]];
      return !was || !is || was[0] !== is[0] || was[1] !== is[1];
    });
    if (files.length > 0) {
      const heading = element('h3', 'DAG files ');
      heading.append(element('span', String(files.length), { class: 'quiet' }));
      difference.append(heading);
    }
    for (const workflow of files) {
      const [was, is] = [one.dags[workflow], other.dags[workflow]];
      const box = element('details', undefined, { class: 'workflow' });
      const summary = element('summary');
      summary.append(element('bdi', workflow, { class: 'name' }));
      if (!was) summary.append(' ', element('ins', 'added'));
      if (!is) summary.append(' ', element('del', 'removed'));
      box.append(summary);
      const fill = () => {
        if (box.childElementCount > 1) return;
        const lost = (file) => file && file[1] === null;
        if (lost(was) || lost(is)) box.append(element('p', 'The file is lost.', { class: 'quiet' }));
        else box.append(changedLines(lines(was?.[1]), lines(is?.[1])));
      };
      box.addEventListener('toggle', fill);
      if (files.length <= 3) { box.open = true; fill(); }
      difference.append(box);
    }
    if (difference.childElementCount === 0) difference.append(element('p', 'Nothing is different.', { class: 'quiet' }));
  };

  document.querySelector('.choice').hidden = false;
  from.addEventListener('change', compare);
  to.addEventListener('change', compare);
  document.getElementById('swap').addEventListener('click', () => {
    [from.value, to.value] = [to.value, from.value];
    compare();
  });

  // On paper nothing can be unfolded.
  let folded = [];
  addEventListener('beforeprint', () => {
    folded = [...document.querySelectorAll('.panel.shown details:not([open])')];
    folded.forEach((box) => { box.open = true; });
  });
  addEventListener('afterprint', () => folded.forEach((box) => { box.open = false; }));

  choose(Math.max(0, named()));
})();
