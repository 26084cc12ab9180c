"""Take a report apart: its style and pictures become files, for web servers that forbid both inside pages."""

import base64
import html
import re
from pathlib import Path

_STYLE_FILE = "report.css"
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'\">"
)
_META_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
_LEFT_OUT = re.compile(r'<script>.*?</script>|<link rel="icon"[^>]*>', re.DOTALL)  # both are for a page by itself
_STYLE = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)
_PICTURE = re.compile(r'\b(src|href)="data:image/(\w+);base64,([^"]*)"')
_STYLED = re.compile(r'<[\w:]+[^<>]*? style="([^"]*)"[^<>]*>')


def take_apart(report: Path, folder: Path) -> None:
    """Rewrite a report of ours; its files go to `folder`, which is beside it."""
    folder.mkdir(exist_ok=True)
    page = _LEFT_OUT.sub("", _META_POLICY.sub(lambda _: _POLICY, report.read_text(encoding="utf-8"), count=1))
    rules = _STYLE.findall(page)
    page = _STYLE.sub("", page)
    pictures: list[str] = []
    classes: dict[str, str] = {}

    def as_file(found: re.Match[str]) -> str:
        name = f"report-{len(pictures)}.{found[2]}"
        pictures.append(name)
        (folder / name).write_bytes(base64.b64decode(found[3]))  # which skips line ends
        return f'{found[1]}="{folder.name}/{name}"'

    def as_class(found: re.Match[str]) -> str:
        name = classes.setdefault(found[1], f"style-{len(classes)}")
        tag = found[0].replace(f' style="{found[1]}"', "", 1)
        if ' class="' in tag:
            return tag.replace(' class="', f' class="{name} ', 1)
        end = "/>" if tag.endswith("/>") else ">"
        return f'{tag.removesuffix(end)} class="{name}"{end}'

    page = _STYLED.sub(as_class, _PICTURE.sub(as_file, page))
    rules += [f".{name} {{ {html.unescape(style)} }}" for style, name in classes.items()]
    (folder / _STYLE_FILE).write_text("\n".join(rules), encoding="utf-8")
    link = f'<link rel="stylesheet" href="{folder.name}/{_STYLE_FILE}">\n</head>'
    report.write_text(page.replace("</head>", link, 1), encoding="utf-8")
