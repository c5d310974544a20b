"""SGLang's command."""

from holdfast.domain.engine import EngineKind
from holdfast.domain.replica import StartFault
from holdfast.policy.launch import launch
from plans import planned, words


def test_sglang_gets_its_key_by_a_file_and_wants_gpus():
    found = launch(planned(kind=EngineKind.SGLANG))
    assert found.files == (("sglang.yaml", 'api-key: "k3y"\n'),)
    assert "--tp-size 8" in words(found)
    assert "--max-running-requests 32 --max-queued-requests 128" in words(found)
    assert "--tp-size 8 --enable-dp-attention --dp-size 8 --ep-size 8" in words(
        launch(planned("v3.2", kind=EngineKind.SGLANG))
    )
    assert launch(planned(kind=EngineKind.SGLANG, gpus=())).code is StartFault.DEVICE
