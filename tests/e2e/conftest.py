from pathlib import Path

import pytest

from tests.project import Project

PLANTED = """
generator:
  type: tests.planted_languages.PlantedGeneratorDataset
  texts: data/01_raw/parallel_texts.jsonl
  trained: {english: 0, spanish: 2, french: 3, italian: 3, portuguese: 1, german: 0, mandarin: 0}
"""


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Project:
    """A finished run of fr_it in which 2 of 3 Spanish, 3 of 3 French and 1 of 3 Portuguese samples are Italian."""
    project = Project(tmp_path_factory.mktemp("planted") / "project", tiny_model_folder)
    (project.folder / "conf/test/catalog.yml").write_text(PLANTED)
    done = project.run("condition=fr_it")
    assert done.returncode == 0, done.stderr
    return project
