"""What a browser would make of a page, and a look for all that could run or load."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.open = [], "", []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, element, attributes):
        self.elements.append((element, dict(attributes)))
        if element != "meta":
            self.open.append(element)

    def handle_startendtag(self, element, attributes):
        self.elements.append((element, dict(attributes)))

    def handle_endtag(self, element):
        assert self.open.pop() == element

    def handle_data(self, data):
        self.text += data


PROSE = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
SAFE = PROSE | {"svg", "line", "rect", "text", "g", "polyline"}


def checked(text):
    """Return a page after a look for all that could run or load."""
    found = Page(text)
    assert {element for element, _ in found.elements} <= SAFE
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name in {"href", "src", "style"}]
    assert "url(" not in text
    assert "http:" not in text
    assert "@import" not in text
    return found
