"""What secrets look like: names of files, forms of tokens, and what detect-secrets is to look for."""

import re

NAMES = (
    ".env",
    ".env.*",
    "*.env",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".htpasswd",
    ".npmrc",
    ".pypirc",
    ".Renviron",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.kdbx",
    "*.keystore",
    "secrets.toml",
    "secrets.yaml",
    "secrets.yml",
    "secrets.json",
    "credentials.json",
    "service-account*.json",
)
PATHS = (
    ".docker/config.json",
    ".aws/credentials",
    ".kube/config",
    ".cache/huggingface/token",
    ".huggingface/token",
    ".ssh/*",
    ".git/config",
)
"""Ends of paths whose last component alone says nothing."""
EXAMPLES = ("*.example", "*.sample", "*.template")
KNOWN = {
    "a Hugging Face token": re.compile(r"(?<![A-Za-z0-9])(?:api_org|hf)_[A-Za-z0-9]{16,}"),
    "a Replicate token": re.compile(r"(?<![A-Za-z0-9])r8_[A-Za-z0-9]{16,}"),
    "an OpenAI or Anthropic key": re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{20,}"),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY"),
}
INSTALLED = ("site-packages", "node_modules")
"""Folders with thousands of files of others; that they are sent is said elsewhere."""
VARIABLE = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY", re.IGNORECASE
)
PLUGINS = (
    "ArtifactoryDetector",
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "BasicAuthDetector",
    "CloudantDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "IbmCloudIamDetector",
    "IbmCosHmacDetector",
    "JwtTokenDetector",
    "KeywordDetector",
    "MailchimpDetector",
    "NpmDetector",
    "OpenAIDetector",
    "PrivateKeyDetector",
    "PypiTokenDetector",
    "SendGridDetector",
    "SlackDetector",
    "SoftlayerDetector",
    "SquareOAuthDetector",
    "StripeDetector",
    "TelegramBotTokenDetector",
    "TwilioKeyDetector",
)
"""Of detect-secrets: all but those for addresses, and for high entropy, which pinned commits have too."""
FILTERS = (
    "allowlist.is_line_allowlisted",
    "heuristic.is_indirect_reference",
    "heuristic.is_prefixed_with_dollar_sign",
    "heuristic.is_sequential_string",
    "heuristic.is_templated_secret",
)
"""Of detect-secrets: what is no secret after all."""
