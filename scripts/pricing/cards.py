"""Every card of the hosts in prices.toml: those that Replicate rents, and those that only others do."""

from bounds import CARDS, NVIDIA, Card

ELSEWHERE = (
    Card(
        "L4",
        bandwidth=300e9,
        half=121e12,
        int8=242e12,
        capability=(8, 9),
        gib=22.0,
        source="NVIDIA L4 datasheet https://www.nvidia.com/en-us/data-center/l4/",
    ),
    Card(
        "A10G",
        bandwidth=600e9,
        half=70e12,
        int8=140e12,
        capability=(8, 6),
        gib=22.0,
        source="NVIDIA A10G datasheet https://d1.awsstatic.com/product-marketing/ec2/"
        "NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf",
    ),
    Card(
        "A40",
        bandwidth=696e9,
        half=149.7e12,
        int8=299.3e12,
        capability=(8, 6),
        gib=44.4,
        source="NVIDIA A40 datasheet https://images.nvidia.com/content/Solutions/data-center/a40/"
        "nvidia-a40-datasheet.pdf",
    ),
    Card(
        "RTX 3090",  # half: torch accumulates in fp32, at half the rate of a GeForce's tensor cores in fp16
        bandwidth=936e9,
        half=71e12,
        int8=284e12,
        capability=(8, 6),
        gib=23.6,
        source="NVIDIA Ampere GA102 whitepaper https://www.nvidia.com/content/PDF/"
        "nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.1.pdf",
    ),
    Card(
        "RTX 4090",
        bandwidth=1008e9,
        half=165.2e12,
        int8=660.6e12,
        capability=(8, 9),
        gib=23.6,
        source="NVIDIA Ada whitepaper https://images.nvidia.com/aem-dam/Solutions/geforce/ada/"
        "nvidia-ada-gpu-architecture.pdf",
    ),
    Card(
        "RTX 4000 SFF Ada",  # its datasheet gives 306.8 TFLOPS, of 8-bit sparse matrices
        bandwidth=280e9,
        half=76.7e12,
        int8=153.4e12,
        capability=(8, 9),
        gib=18.6,  # its 20 GB; nobody's driver was asked
        source=f"NVIDIA RTX 4000 SFF Ada datasheet {NVIDIA}/rtx-4000-sff/"
        "proviz-rtx-4000-sff-ada-datasheet-2616456-web.pdf",
    ),
)
BY_NAME = {card.name: card for card in (*CARDS, *ELSEWHERE)}
