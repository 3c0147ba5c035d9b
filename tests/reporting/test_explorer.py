"""The explorer shows what the API gives, needs nothing but its file, and works in a browser."""

import base64
import io
import json
import re
import time

import numpy as np
import pytest
from browser import Page, needs_browser
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


@pytest.fixture(scope="module")
def browser_page(page, tmp_path_factory):
    browser_page = Page(page, tmp_path_factory.mktemp("downloads"))
    yield browser_page
    browser_page.close()


@pytest.fixture
def opened(browser_page):
    """The page in a browser, at the first person's neutral face."""
    set_control(browser_page, "person", 0)
    set_control(browser_page, "choice", 0)
    set_control(browser_page, "strength", 0)
    wait_until(browser_page, "sprite.complete")
    return browser_page


def set_control(opened, name, value):
    event = "input" if name == "strength" else "change"
    opened.value(f"get('{name}').value = {value}; get('{name}').dispatchEvent(new Event('{event}'))")


def wait_until(opened, condition):
    assert opened.value(f"""new Promise(done => {{
        const poll = count => {condition} || count == 0 ? done(count > 0) : setTimeout(poll, 20, count - 1);
        poll(500);
    }})"""), condition


def mouth(opened) -> int:
    return opened.value("get('face').getContext('2d').getImageData(192, 300, 1, 1).data[0]")


def readout(opened) -> str:
    return opened.value("get('readout').textContent")


@pytest.mark.slow
@needs_browser
def test_in_a_browser_the_slider_moves_the_face_and_the_choice_changes_it(opened):
    assert opened.value("document.title") == "Expression explorer"
    assert opened.value("[...get('person').options].map(o => o.text)") == NAMES
    assert readout(opened) == "strength 0.0, measured smile: 0.00" and mouth(opened) < 5
    set_control(opened, "strength", 10)
    assert readout(opened) == "strength 1.0, measured smile: 1.00" and mouth(opened) > 250
    set_control(opened, "person", 1)
    set_control(opened, "choice", 1)
    wait_until(opened, "sprite.complete")
    assert readout(opened) == "strength 1.0, measured smile: 0.00" and mouth(opened) < 5


@pytest.mark.slow
@needs_browser
def test_in_a_browser_arrow_keys_step_and_play_moves_until_it_is_paused(opened):
    for _ in range(3):  # person, expression, strength
        opened.press("Tab")
    assert opened.value("document.activeElement.id") == "strength"
    opened.press("ArrowRight")
    opened.press("ArrowRight")
    opened.press("ArrowLeft")
    assert readout(opened).startswith("strength 0.1,")
    opened.press("End")
    assert readout(opened).startswith("strength 1.3,")
    opened.press("Tab")
    opened.press(" ")
    assert opened.value("get('play').textContent") == "Pause"
    wait_until(opened, "step() < 12")  # it has turned round
    opened.press(" ")
    paused_at = opened.value("step()")
    assert opened.value("get('play').textContent") == "Play"
    assert opened.value("new Promise(done => setTimeout(() => done(step()), 400))") == paused_at


@pytest.mark.slow
@needs_browser
def test_in_a_browser_the_strip_is_saved_and_the_codes_are_copied(opened):
    opened.value("get('strip').click()")
    strip = opened.downloads / "strip.png"
    wait_for_file(strip)
    sprite = base64.b64decode(opened.value("choice().sprite").partition(",")[2])
    np.testing.assert_array_equal(Image.open(strip).convert("RGB"), Image.open(io.BytesIO(sprite)).convert("RGB"))

    set_control(opened, "strength", 10)
    opened.value("get('copy').click()")
    wait_until(opened, "get('copied').textContent == 'Copied.'")
    codes = Codes.from_json(opened.value("navigator.clipboard.readText()"))
    assert np.asarray(codes.expression) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
@needs_browser
def test_in_a_browser_nothing_is_requested_and_nothing_fails(opened, page):
    set_control(opened, "person", 1)
    wait_until(opened, "sprite.complete")
    urls = [event["params"]["request"]["url"] for event in opened.events_of("Network.requestWillBeSent")]
    assert page.as_uri() in urls
    assert [url for url in urls if url != page.as_uri() and not url.startswith(("data:", "blob:"))] == []
    entries = [event["params"]["entry"] for event in opened.events_of("Log.entryAdded")]
    assert opened.events_of("Runtime.exceptionThrown") == []
    assert [entry for entry in entries if entry["level"] == "error"] == []


def wait_for_file(path):
    for _ in range(500):
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.02)
    raise AssertionError(f"{path.name} was not saved")
