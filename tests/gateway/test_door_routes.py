"""Nothing of an engine's own surface is reachable through the door, whatever the method; and nobody makes us fetch anything."""

import pytest
from doorway import Says, doorway, run

# What vLLM and SGLang serve beside the API that we speak: weights, caches, profiles, sessions, sleep, scores, metrics of theirs.
VLLM = """
/ping /version /load /health /server_info /reset_prefix_cache /reset_mm_cache /reset_encoder_cache /sleep /wake_up /is_sleeping
/collective_rpc /start_profile /stop_profile /pause /resume /is_paused /scale_elastic_ep /is_scaling_elastic_ep /invocations
/pooling /classify /score /rerank /v1/score /v1/rerank /v2/rerank /v1/embeddings /v1/audio/transcriptions
/v1/audio/translations /v1/load_lora_adapter /v1/unload_lora_adapter /v1/chat/completions/render /inference/v1/generate
/init_weight_transfer_engine /update_weights /get_world_size /abort_requests /derender /tokenizer_info /docs /redoc
"""
SGLANG = """
/generate /generate_from_file /encode /classify /health_generate /get_model_info /model_info /get_weight_version /weight_version
/get_server_info /server_info /get_load /v1/loads /set_internal_state /flush_cache /clear_hicache_storage_backend
/start_profile /stop_profile /freeze_gc /start_expert_distribution_record /stop_expert_distribution_record
/dump_expert_distribution_record /update_weights_from_disk /update_weights_from_tensor /update_weights_from_distributed
/update_weights_from_ipc /init_weights_update_group /destroy_weights_update_group /init_weights_send_group_for_remote_instance
/send_weights_to_remote_instance /update_weight_version /get_weights_by_name /release_memory_occupation
/resume_memory_occupation /slow_down /open_session /close_session /configure_logging /abort_request /parse_function_call
/separate_reasoning /pause_generation /continue_generation /load_lora_adapter /unload_lora_adapter /v1/rerank /v1/score
/v1/embeddings /api/generate /api/chat /api/tags /api/show /vertex_generate /engine_metrics /dumper
"""
OTHERS = """
/ /v1 /v1/ /admin /v1/admin /v1/site /v1/events /v1/load /v1/keys /grpc.health.v1.Health/Check /.env /.git/config /debug/pprof
/v1/files /v1/batches /v1/fine_tuning/jobs /v1/images/generations /v1/assistants /v1/threads /v1/moderations
/v1//chat/completions //v1/chat/completions /v1/chat/completions/ /v1/chat/../chat/completions /v1/chat%2fcompletions
/V1/chat/completions /v1/chat/completions;x=1 /v1/chat/completions%00 /metrics/ /health
"""
ROUTES = tuple(sorted(set(f"{VLLM} {SGLANG} {OTHERS}".split())))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_an_engines_own_routes_are_not_here(method: str) -> None:
    async def story() -> None:
        says = Says()
        async with doorway(says) as place, place.client() as client:
            for route in ROUTES:
                client.write(f"{method} {route} HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n{{}}".encode())
                if method == "HEAD":
                    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 "), route
                else:
                    answer = await client.answer()
                    assert (answer.status, answer.error["code"]) in ((404, "not_found"), (404, "model_not_found")), (
                        route
                    )
            assert says.asked == []

    run(story())


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video_url", "audio_url", "file", "input_image"])
def test_media_are_refused_by_name_and_never_fetched(kind: str) -> None:
    async def story() -> None:
        says = Says()
        async with doorway(says) as place, place.client() as client:
            part = {"type": kind, kind: {"url": "http://169.254.169.254/latest/meta-data/"}}
            turn = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}
            answer = await client.ask({"model": "pearl", "messages": [turn]})
            assert answer.status == 400
            assert answer.error["param"].startswith("messages[0].content[1]") and kind in answer.error["message"]
            assert says.asked == []

    run(story())
