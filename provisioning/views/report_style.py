"""How a report looks: on a screen, light or dark, wide or narrow, and on paper."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--line:#d9dee6;--text:#1b2330;--soft:#576375;--link:#0b5cad;
--code:#f0f2f6;--succeeded:#15733c;--failed:#c4232f;--running:#0a64be;--pending:#5f6a7a;--skipped:#5f6a7a;
--cancelled:#8a5a00;--undone:#7a4bb3;--interrupted:#9a5b00;--chain:#1b2330;--tint:10%}
@media (prefers-color-scheme:dark){:root{--page:#11151b;--card:#1a2029;--line:#343d4a;--text:#e8ecf2;--soft:#a5b0bf;
--link:#7fb8f5;--code:#232b36;
--succeeded:#4cc38a;--failed:#ff7b83;--running:#6cb2ff;--pending:#98a3b3;--skipped:#98a3b3;
--cancelled:#e5b567;--undone:#c19cf0;--interrupted:#f0b35e;--chain:#e8ecf2;--tint:18%}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-padding-top:1rem}
body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif}
header,main,footer{max-width:1240px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 6px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:0 0 12px}
h3{font-size:1rem;margin:0 0 6px;overflow-wrap:anywhere}
p{margin:0 0 10px;overflow-wrap:anywhere}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,
[tabindex]:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:4px}
code,pre,.mono{font:13px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{margin:0;padding:12px 14px;background:var(--code);border-radius:8px;
white-space:pre-wrap;overflow-wrap:anywhere;
max-height:32rem;overflow:auto}
code{overflow-wrap:anywhere}
.soft{color:var(--soft)}
.skip{position:absolute;left:-9999px}
.skip:focus{left:20px;top:8px;background:var(--card);padding:8px 12px;z-index:2}
.title{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center}
.badge{display:inline-flex;gap:.4em;align-items:center;border-radius:99px;padding:2px 12px;
font-weight:600;font-size:.9rem;
color:var(--now);border:1.5px solid var(--now);background:color-mix(in srgb,var(--now) var(--tint),var(--card))}
.state{white-space:nowrap;color:var(--now);font-weight:600}
.succeeded{--now:var(--succeeded)}.failed,.timed_out{--now:var(--failed)}.running,.rolling_back{--now:var(--running)}
.pending,.queued,.skipped{--now:var(--pending)}.cancelled,.abandoned,.paused,.rejected{--now:var(--cancelled)}
.undone,.rolled_back{--now:var(--undone)}.interrupted{--now:var(--interrupted)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:12px 24px;margin:16px 0 0}
dt{color:var(--soft);font-size:.82rem}
dd{margin:0;overflow-wrap:anywhere}
nav ul{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:18px 0 0;
padding:10px 0;border-top:1px solid var(--line)}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin:16px 0}
.alarm{border-color:var(--failed)}
article{border-top:1px solid var(--line);padding:14px 0 4px}
article:first-of-type{border-top:0;padding-top:0}
.hint{border-left:3px solid var(--link);padding-left:10px}
.counts{display:block;width:100%;height:14px;border-radius:7px;overflow:hidden;margin:4px 0 10px}
.counts rect{fill:var(--now)}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:0;padding:0}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:0 0 6px;font-size:.88rem}
th,td{text-align:left;vertical-align:top;padding:6px 14px 6px 0;border-bottom:1px solid var(--line)}
th{font-size:.82rem;color:var(--soft);font-weight:600;white-space:nowrap}
tbody th{font-size:inherit;color:inherit;font-weight:600;white-space:normal}
td.n,th.n{text-align:right}
td.wide{min-width:16rem;overflow-wrap:anywhere}
th.id{min-width:9rem;overflow-wrap:anywhere}
tr:last-child>*{border-bottom:0}
tr:target>*{background:color-mix(in srgb,var(--link) 14%,transparent)}
details{border-top:1px solid var(--line);padding:8px 0}
td details{border:0;padding:0}
h4{font-size:.82rem;color:var(--soft);margin:8px 0 4px}
.why{font-weight:400;color:var(--soft)}
section>details:first-of-type{border-top:0}
summary{cursor:pointer;font-weight:600;overflow-wrap:anywhere}
summary .soft{font-weight:400}
td summary{font-weight:400;color:var(--link)}
.group[open]{content-visibility:auto;contain-intrinsic-size:auto 30rem}
.picture{max-height:85vh;overflow:auto}
svg text{font-family:inherit;fill:var(--text)}
.graph,.time{display:block}
.box{fill:var(--card);stroke:var(--line)}
.node .box{stroke:var(--now);stroke-width:1.25}
.node .bar{fill:var(--now)}
.node .name{font-size:13px;font-weight:600}
.node .detail{font-size:11.5px;fill:var(--soft)}
.node .mark{font-size:13px;fill:var(--now)}
.node.chain .box{stroke-width:2.5}
.node.pending .box,.node.skipped .box{stroke-dasharray:4 3}
.edge{fill:none;stroke:var(--soft);stroke-width:1.25;opacity:.55}
.edge.after{stroke-dasharray:5 4}
.edge.chain{stroke:var(--chain);stroke-width:2.25;opacity:1}
.tick{stroke:var(--line)}
.axis,.slot{font-size:11.5px;fill:var(--soft)}
.axis{text-anchor:middle}
.slot{text-anchor:end}
.attempt .box{fill:color-mix(in srgb,var(--now) 26%,var(--card));stroke:var(--now)}
.attempt.chain .box{stroke:var(--chain);stroke-width:2.25}
.attempt text{font-size:11.5px}
footer{color:var(--soft);font-size:.88rem;padding-bottom:40px}
@media (max-width:600px){header,main,footer{padding-left:12px;padding-right:12px}
section{padding:14px 12px;border-radius:10px}
h1{font-size:1.35rem}th,td{padding-right:10px}
th.id{min-width:7rem;max-width:10rem}
thead th:first-child,tbody th.id{position:sticky;left:0;background:var(--card)}
dl{grid-template-columns:1fr 1fr;gap:10px 14px}}
@media print{:root{color-scheme:light;--page:#fff;--card:#fff;--line:#bbb;--text:#000;--soft:#444;--link:#000;
--code:#f4f4f4;
--succeeded:#1a7f45;--failed:#b0101c;--running:#0b57a5;--pending:#555;--skipped:#555;--cancelled:#7a4f00;
--undone:#5d2f9a;
--interrupted:#7a4700;--chain:#000;--tint:8%}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
body{font-size:10.5pt}nav,.skip{display:none}header,main,footer{max-width:none;padding:0}
section{border:0;border-top:1px solid var(--line);border-radius:0;padding:10px 0;break-inside:auto}
.scroll,.picture{overflow:visible;max-height:none}.graph,.time{max-width:100%;height:auto;max-height:24cm}
pre{max-height:none;overflow:visible}h2,h3,summary{break-after:avoid}tr,article{break-inside:avoid}
thead{display:table-header-group}.group[open]{content-visibility:visible}
details::details-content{content-visibility:visible;block-size:auto;display:block}summary{list-style:none}}
"""
