"""vLLM that is not there, does not work or runs out of memory: one line, exit status 1, finished completions kept."""

import json

import pytest

from tests.project import Project

GENERATOR = """
generator:
  type: persona_leakage.datasets.EngineDataset
  engine: vllm_generator
  cache: data/cache
  device: auto
  options: {longest: 512, memory_share: 0.1}
"""
NO_GPU = {"__init__.py": "LLM = None", "platforms.py": "class current_platform: device_type = ''"}
FILLS_UP = {
    "__init__.py": """
from types import SimpleNamespace
import torch

class SamplingParams(SimpleNamespace):
    pass

class LLM:
    def __init__(self, **options):
        self.llm_engine = self
        self.waiting = []
    def add_request(self, name, prompt, params, lora_request):
        self.waiting.append((name, params.n))
    def has_unfinished_requests(self):
        return True
    def step(self):
        name, samples = self.waiting.pop()
        if len(self.waiting) < 10:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        output = SimpleNamespace(token_ids=[40, 41], finish_reason="stop")
        return [SimpleNamespace(finished=True, request_id=name, outputs=[output] * samples)]
""",
    "platforms.py": "class current_platform: device_type = 'cuda'",
    "sampling_params.py": "class RequestOutputKind: FINAL_ONLY = 2",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "said", "kept"),
    [
        ({}, "the generator is vLLM, which is not installed; run: pip install --editable '.[vllm]'", 0),
        (
            {"__init__.py": "raise OSError('vllm/_C.so: undefined symbol: _ZN3c10')"},
            "vLLM is installed and cannot be loaded (vllm/_C.so: undefined symbol: _ZN3c10); run: pip install",
            0,
        ),
        (NO_GPU, "vLLM is installed for a GPU and none is visible; take the transformers_generator of", 0),
        (FILLS_UP, "the GPU ran out of memory while sampling; what is finished is kept; lower the generator's option", 4),
    ],
    ids=["missing", "broken", "no GPU", "out of memory"],
)
def test_the_command_ends_with_one_line_and_status_1(project: Project, package: dict[str, str], said: str, kept: int) -> None:
    (project.folder / "conf/test/catalog.yml").write_text(GENERATOR)
    for name, text in package.items():
        file = project.folder / "src/vllm" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    done = project.run("condition=baseline", "--tags=data_generation,fine_tuning,generation")

    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"Error: {said}")
    assert "Traceback" not in done.stderr
    prompts = {
        json.loads(line)[0].split(".")[0]
        for file in project.folder.glob("data/cache/completions/*.jsonl")
        for line in file.open()
    }
    assert len(prompts) == kept
