"""The words of a page, one line per paragraph, row and heading."""

from html.parser import HTMLParser

HIDDEN = {"style", "script", "title"}
LINES = {"p", "h1", "h2", "h3", "tr", "caption", "li", "dt", "dd", "figcaption", "pre", "div", "a"}
CELLS = {"td", "th"}


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in HIDDEN
        if tag in LINES:
            self.text.append("\n")
        if tag == "img":
            self.text.append(f"\n[picture: {dict(attrs).get('alt')}]")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in HIDDEN
        if tag in LINES:
            self.text.append("\n")
        if tag in CELLS:
            self.text.append(" | ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)


def page_text(html: str) -> str:
    """Return the words of a page as lines."""
    reader = _Words()
    reader.feed(html)
    lines = (line.strip() for line in "".join(reader.text).splitlines())
    return "\n".join(line for line in lines if line) + "\n"
