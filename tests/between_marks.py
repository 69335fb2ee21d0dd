"""A table in a page of Markdown, written anew by whoever measures what it shows."""

from pathlib import Path


def write_between(begin: str, end: str, text: str, page: Path) -> None:
    """Replace what stands in the page between two marks, each on a line of its own, and nothing else."""
    head, rest = page.read_text().split(begin)
    page.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")
