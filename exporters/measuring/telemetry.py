"""What libraries tell their makers about a process: switched off before they are imported, for they read it then.

onnxruntime >= 1.29 on Linux and macOS asks for the host ``mobile.events.data.microsoft.com`` after some seconds, and
keeps a device id and a database of events in the home folder. huggingface_hub, and transformers with it, say in the
headers of requests what they are used for; datasets counts what is loaded. Standard library only: a command does this
before anything else.
"""

import os

OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # of transformers as well; DO_NOT_TRACK, which it also reads, says no more
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # of datasets
}


def switch_off() -> None:
    """Set the variables for this process and its children; what the user has set stays."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
