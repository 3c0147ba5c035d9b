"""The explorer shows what the API gives, needs nothing but its file, and works in a browser."""

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from tiny_run import flat_face

from facedisent_jax.config import Config
from facedisent_jax.errors import UserError
from facedisent_jax.evaluation.judges import Judge, StillJudges
from facedisent_jax.models import Codes
from facedisent_jax.reporting import explorer
from facedisent_jax.trained_model import TrainedModel

EVIL_NAME = "</script><script>document.title='harm'</script>"
NAMES = ["Ann", EVIL_NAME]
FACES = np.stack([flat_face(1, 0.0), flat_face(2, 0.0)])
SMILE = Judge("lightness of the mouth", lambda images: images[:, 40:60, 15:50].mean((1, 2, 3)))
CHROMIUM = shutil.which("chromium")


class FlatModel(TrainedModel):
    """Expression codes are the lightness of the mouth; the person is the rest of a flat face."""

    def __init__(self):
        super().__init__({}, Config(), {"expressions": ["smile"], "data": ["/none"]}, 7)

    def encode(self, images):
        images = np.asarray(images)
        person = [np.abs(FACES[:, 0, 0].astype(float) - 255 * to_float(x)[0, 0]).sum(1).argmin() for x in images]
        mood = to_float(images)[:, 50, 20, 0]
        return Codes._make(np.repeat(np.array(v, np.float32)[:, None], 64, 1) for v in (person, mood))

    def decode(self, codes, source=None, source_b=None, alpha=None):
        out = to_float(FACES[np.rint(np.asarray(codes[0])[:, 0]).astype(int)])
        out[:, 40:60, 15:50] = np.asarray(codes[1])[:, :1, None, None]
        return np.clip(out, 0, 1)


def to_float(images):
    return images / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(explorer.render(FlatModel(), NAMES, FACES, StillJudges(SMILE, None, []), None), encoding="utf-8")
    return path


def content(page) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL).group(1))  # type: ignore[union-attr]


def test_the_images_are_those_that_the_model_decodes_from_the_codes_on_the_page(page):
    model = FlatModel()
    for person in content(page)["people"]:
        for choice in person["choices"]:
            data = base64.b64decode(choice["sprite"].partition(",")[2])
            row = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            for k, weight in enumerate(choice["weights"]):
                start, end = np.array(person["expression"]), np.array(choice["end"])
                text = json.dumps(
                    {"identity": person["identity"], "expression": (start + weight * (end - start)).tolist()}
                )
                decoded = model.decode(Codes.from_json(text))[0]
                assert row[:, 64 * k : 64 * k + 64] / 255 == pytest.approx(decoded, abs=0.5 / 255 + 1e-5)
                assert choice["smile"][k] == pytest.approx(decoded[40:60, 15:50].mean(), abs=1e-4)


def test_the_choices_are_the_action_and_the_expressions_of_the_others(page):
    titles = [[choice["title"] for choice in person["choices"]] for person in content(page)["people"]]
    assert titles == [
        ["smile, as people do on average", f"expression of {EVIL_NAME}"],
        ["smile, as people do on average", "expression of Ann"],
    ]


def test_nothing_on_the_page_comes_from_elsewhere(page):
    text = page.read_text(encoding="utf-8")
    assert EVIL_NAME not in text
    assert "default-src 'none'" in text and "http://www.w3.org/2000/svg" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)


def test_more_people_than_a_page_can_show_are_refused():
    with pytest.raises(UserError, match="at most 8 people, got 9"):
        explorer.render(FlatModel(), 9 * ["a"], FACES, StillJudges(SMILE, None, []), None)


STEPS = """
<script>
addEventListener("load", () => setTimeout(() => {
  const out = {errors: window.faults, title: document.title};
  const pixel = () => [...get("face").getContext("2d").getImageData(192, 300, 1, 1).data].slice(0, 3);
  out.neutral = [pixel(), get("readout").textContent];
  get("strength").value = 10; get("strength").dispatchEvent(new Event("input"));
  out.full = [pixel(), get("readout").textContent, codes()];
  get("person").value = 1; get("person").dispatchEvent(new Event("change"));
  out.names = [...get("person").options].map(o => o.text);
  get("choice").value = 1; get("choice").dispatchEvent(new Event("change"));
  setTimeout(() => {
    out.swap = [pixel(), get("readout").textContent, document.querySelector("circle").getAttribute("cx")];
    document.body.dataset.out = JSON.stringify(out);
  }, 300);
}, 300));
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
def test_in_a_browser_the_slider_moves_the_face_and_the_choice_changes_it(page, tmp_path):
    faults = "<script>window.faults = []; addEventListener('error', e => faults.push(e.message));</script>"
    text = page.read_text(encoding="utf-8").replace("</head>", faults + "</head>").replace("</body>", STEPS + "</body>")
    copy = tmp_path / "steps.html"
    copy.write_text(text, encoding="utf-8")
    browser = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    result = subprocess.run([*browser, copy.as_uri()], capture_output=True, text=True, timeout=120)
    match = re.search(r'data-out="(.*?)"', result.stdout)
    assert match, result.stderr
    out = json.loads(
        match.group(1).replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )
    assert out["errors"] == [] and out["title"] == "Expression explorer" and out["names"] == NAMES
    assert "strength 0.0, measured smile: 0.00" in out["neutral"][1] and out["neutral"][0][0] < 5
    assert "strength 1.0, measured smile: 1.00" in out["full"][1] and out["full"][0][0] > 250
    assert np.asarray(Codes.from_json(out["full"][2]).expression) == pytest.approx(1.0, abs=1e-3)
    assert out["swap"][0][0] < 5 and "strength 1.0, measured smile: 0.00" in out["swap"][1]
