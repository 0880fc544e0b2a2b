"""The pages of docs/experiments and the option files belong together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / 'docs/experiments').glob('*.md'))
PAPERS = [path for path in PAGES if path.stem != 'README']
TEXT = '\n'.join(path.read_text() for path in PAPERS)
FILES = sorted(path.stem for path in (ROOT / 'options').glob('*.yml'))


def rows(page: Path) -> list[dict[str, str]]:
    """Rows of all tables of a page, by the names of their columns."""
    found: list[dict[str, str]] = []
    head: list[str] = []
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')] if line.startswith('|') else []
        if not cells:
            head = []
        elif not head:
            head = cells
        elif set(line) - set('|-'):
            assert len(cells) == len(head), line
            found.append(dict(zip(head, cells, strict=True)))
    return found


@pytest.mark.parametrize('name', FILES)
def test_every_option_file_is_in_a_page(name):
    assert f'`{name}.yml`' in TEXT


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.stem)
def test_pages_name_files_that_are_there(page):
    text = page.read_text()
    named = re.findall(r'`(?:options/)?((?:train|test)_[\w-]+)\.yml`', text)
    named += re.findall(r'options/((?:train|test)_[\w-]+)\.yml', text)
    assert set(named) <= set(FILES) and (named or page.stem == 'README')
    recipes = re.findall(r'(?:datasets_prep/|`)(\w+)\.sh', text)
    assert all((ROOT / f'datasets_prep/{recipe}.sh').is_file() for recipe in recipes)
    for link in re.findall(r'\]\((?!https?:)([^)#]+)', text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize('page', PAPERS, ids=lambda path: path.stem)
def test_every_row_says_what_was_published_and_what_was_measured(page):
    assert rows(page)
    for row in rows(page):
        assert all(row.values()) and row['ours'], row
        tested = re.findall(r'`(test_[\w-]+)\.yml`', row.get('tested by', ''))
        assert 'tested by' not in row or tested or row['tested by'] == '-', row


def test_anchors_of_the_methods_are_there():
    heads = re.findall(r'^## (.+)$', (ROOT / 'docs/methods.md').read_text(), re.M)
    anchors = {re.sub(r'[^\w -]', '', head.lower()).replace(' ', '-') for head in heads}
    assert set(re.findall(r'methods\.md#([\w-]+)', TEXT)) <= anchors
