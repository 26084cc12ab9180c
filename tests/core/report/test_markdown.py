"""Text that others chose is text on a page of Markdown, whatever it holds."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tasks.core.errors import FormatError, PhotosError
from tasks.core.report.markdown import (
    LONGEST_TEXT,
    code_markdown,
    failure_markdown,
    link_markdown,
    plain_markdown,
    quoted_markdown,
)

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
NASTY = [
    "[Sign in again](https://evil.example)",
    "![](https://evil.example/a.png)",
    "<https://evil.example>",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "# heading",
    "> quote",
    "- list",
    "+ list",
    "12. list",
    "    code",
    "``` code",
    "***bold*** __x__ ~~gone~~",
    "a | b",
    "&lt;b&gt; &copy;",
    "back\\slash\\",
    "[ref]: https://evil.example",
    "---",
    "===",
    "DJI_0001_a_.jpg",
]
texts = st.text(
    st.sampled_from("ab \\`*_[](){}<>#+-.!|~&;:/@$^=1)\n\r\t\x1b\u202e\ud800"), max_size=30
) | st.sampled_from(NASTY)


def kinds(tokens: list[Token]) -> list[str]:
    """The types of all tokens but text."""
    found = [inner.type for token in tokens for inner in (token.children or [])]
    return [kind for kind in [*(token.type for token in tokens), *found] if kind not in ("text", "text_special")]


def shown(tokens: list[Token]) -> str:
    return "".join(inner.content for token in tokens for inner in (token.children or []))


def visible(text: str) -> str:
    """Without what parts addresses, which has no width."""
    return text.replace("\u200b", "")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(texts)
def test_a_line_is_one_paragraph_of_text(text: str) -> None:
    tokens = MARKDOWN.parse(plain_markdown(f"x{text}"))
    assert kinds(tokens) == ["paragraph_open", "inline", "paragraph_close"]
    assert not set(shown(tokens)) & set("\n\r\t\x1b\u202e\ud800")


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("before", ["", "# ", "> ", "- ", "a | b\n--|--\nx | "])
def test_it_is_the_same_text_in_every_place(text: str, before: str) -> None:
    tokens = MARKDOWN.parse(before + plain_markdown(text))
    assert kinds(tokens) == kinds(MARKDOWN.parse(before + "word"))
    assert visible(shown(tokens)).endswith(text.strip())


@pytest.mark.parametrize(
    "address", ["https://evil.example/a", "HTTP://evil.example", "www.evil.example", "a@evil.example"]
)
def test_addresses_are_parted_for_renderers_that_link_them_without_brackets(address: str) -> None:
    gfm = re.compile(r"(https?://|www\.)|[\w.+-]+@\w", re.IGNORECASE)  # as remark and marked look for them, in text too
    assert gfm.search(address)
    assert not gfm.search(shown(MARKDOWN.parse(plain_markdown(address))))
    assert visible(shown(MARKDOWN.parse(plain_markdown(address)))) == address


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(NASTY), max_size=4).map("\n".join))
@example("\n\n# heading")
def test_a_quote_holds_paragraphs_and_nothing_else(text: str) -> None:
    found = set(kinds(MARKDOWN.parse(quoted_markdown(text))))
    assert found <= {"blockquote_open", "paragraph_open", "inline", "paragraph_close", "blockquote_close"}


@pytest.mark.parametrize("text", ["a`b", "`", "``a`", "[x](y)", "s3://a/b c", "<b>", "a\nb"])
def test_code_is_one_piece(text: str) -> None:
    tokens = MARKDOWN.parse(f"files in {code_markdown(text)}.")
    assert kinds(tokens) == ["paragraph_open", "inline", "paragraph_close", "code_inline"]
    [code] = [inner for token in tokens for inner in (token.children or []) if inner.type == "code_inline"]
    assert code.content == text.replace("\n", "\\n")


@pytest.mark.parametrize(
    "url", ["http://a/b(c).html", "http://a/b c", "http://a/b)[x](http://evil", "http://a/<b>", "http://a/?x=%2F&y=1#z"]
)
def test_a_link_ends_where_its_address_does(url: str) -> None:
    tokens = MARKDOWN.parse(link_markdown("Report", url))
    assert kinds(tokens) == ["paragraph_open", "inline", "paragraph_close", "link_open", "link_close"]
    assert shown(tokens) == "Report"
    assert "%25" not in link_markdown("Report", url), "what is quoted already stays as it is"


def test_long_text_is_cut() -> None:
    assert len(plain_markdown("a" * 100_000)) == LONGEST_TEXT + 1
    assert len(quoted_markdown("a\n" * 100_000)) < 10 * LONGEST_TEXT


def test_the_page_of_a_failure_has_only_our_own_links() -> None:
    """A member's name wrote a heading, a link and a picture into it."""
    nasty = "\n\n".join(NASTY)
    for error in (FormatError(f"{nasty} is no model."), PhotosError(nasty), KeyError(nasty)):
        tokens = MARKDOWN.parse(failure_markdown(nasty, "sfm", error, (("sfm", "http://pages/a b/sfm.log"),)))
        assert kinds(tokens).count("heading_open") == 1
        assert kinds(tokens).count("link_open") == 1
        assert not {"image", "html_inline", "html_block", "bullet_list_open", "code_block"} & set(kinds(tokens))
