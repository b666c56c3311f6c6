"""Extensions: one is added in a few lines, and told by discovery from then on."""

from pathlib import Path

from mirror.server.answer import Answer, json_answer
from mirror.server.extensions import Extension, ExtensionAsk
from tests.content import LayoutWriter
from tests.serving import serving


async def test_an_extension_is_added(tmp_path: Path) -> None:
    async def count(ask: ExtensionAsk) -> Answer:
        names = await ask.content.names()
        readable = [name for name in names if ask.access.may_read(ask.identity, name)]
        return json_answer(200, {"repositories": len(readable)}, {})

    extension = Extension("_count", "How many repositories there are", "https://example/count", {"all": count})
    writer = LayoutWriter(tmp_path / "layouts" / "app")
    writer.tag(writer.image(), "1").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"], further=[extension]) as mirror:
        assert (await mirror.get("/v2/_count/all")).json() == {"repositories": 1}
        for path in ("/v2/_oci/ext/discover", "/v2/app/_oci/ext/discover"):
            told = (await mirror.get(path)).json()["extensions"]
            assert [one["name"] for one in told] == ["_count", "_mirror", "_oci"]
            assert told[0] == extension.to_json()
        assert (await mirror.get("/v2/_count/none")).status == 404
        assert (await mirror.request("POST", "/v2/_count/all")).status == 405
