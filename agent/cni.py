# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The CNI conversation: requests as the specification defines them, in versions 0.3.1 to 1.1.0.

Configuration, in the `ipam` object of the main plugin (names and meaning are calico-ipam's):

    type                      podnet-ipam
    assign_ipv4, assign_ipv6  "true" or "false"; by default a pod gets an IPv4 address only
    ipv4_pools, ipv6_pools    pool names or CIDRs for pods for which no annotation says otherwise
    ranges                    the same, as host-local has it (ranges.py); its families are then the default
    subnets, gateway, routes  what the answer says beside addresses (result.py)

Pod annotations come with the request when the conflist asks for the capability `io.kubernetes.cri.pod-annotations`;
otherwise the pod is read from the API server.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from dataclasses import dataclass, replace
from functools import cache, cached_property

from .._core.assignment import (
    AssignmentError,
    NoPool,
    Subject,
    addresses,
    families,
    parse_addresses,
    sticky_seconds,
)
from .._core.names import OBJECT_NAME, handle_id
from .._kube.errors import ApiError, NotFound, Unreachable
from . import codec
from .attachments import Outcome
from .calico import is_calico, refusal
from .cluster import Cluster
from .collector import Collector
from .errors import (
    INCOMPATIBLE_VERSION,
    INTERNAL,
    INVALID_CONFIGURATION,
    INVALID_ENVIRONMENT,
    LIMITED_CONNECTIVITY,
    NO_POOL,
    NOT_ASSIGNED,
    NOT_AVAILABLE,
    TRY_AGAIN_LATER,
    UNDECODABLE,
    CniError,
)
from .host_lock import LOCK_FILE, HostLock
from .ipam import Ipam
from .network_config import POD_ANNOTATIONS, check_types
from .protocol import Answer, Request
from .ranges import Ranges, asked_ranges, configured_ranges
from .record import Record
from .resting import FOR_NOBODY, Keep
from .result import Results

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
_VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
_WITHOUT_CONTAINER = ("GC", "STATUS")
# A DEL needs no more than its key, and is not to fail.
_NEEDS_CONFIGURATION = ("ADD", "CHECK")
_POD_ARGUMENTS = ("K8S_POD_NAMESPACE", "K8S_POD_NAME")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """A decoded request."""

    version: str
    network: str
    container: str
    config: dict
    arguments: dict[str, str]
    netns: str = ""
    interface: str = ""

    @property
    def handle(self) -> str:
        return handle_id(self.network, self.container)

    @property
    def pod(self) -> tuple[str, str]:
        """Namespace and name. Outside of Kubernetes the container's id stands for the name, as calico-ipam has it."""
        namespace, name = map(self.arguments.get, _POD_ARGUMENTS)
        return (namespace, name) if self.in_kubernetes else ("default", self.container)

    @property
    def plugin(self) -> dict:
        """The configuration of this plugin: the object `ipam` of the main plugin's."""
        return self.config.get("ipam") or {}

    @cached_property
    def configured(self) -> Ranges:
        """The ranges that the plugin is configured with. CniError names what cannot be used of them."""
        return configured_ranges(self.plugin)

    @cached_property
    def asked(self) -> Ranges:
        """The ranges that the runtime asks for. CniError names what cannot be used of them."""
        return asked_ranges(self.config)

    @property
    def in_kubernetes(self) -> bool:
        return all(map(self.arguments.get, _POD_ARGUMENTS))

    @property
    def attributes(self) -> dict[str, str]:
        """The owner, as it is stored with each address: Calico's keys, and the interface."""
        owner = dict(zip(("namespace", "pod"), self.pod, strict=True)) if self.in_kubernetes else {}
        return {**owner, "interface": self.interface} if self.interface else owner


class CniServer:
    """Answers requests out of `ipam`, which has been started."""

    def __init__(self, ipam: Ipam, cluster: Cluster, node: str, collector: Collector):
        self._ipam = ipam
        self._collector = collector
        self._cluster = cluster
        self._node = node
        self._host_lock = cache(HostLock)
        # The plugin's configuration comes with each request; this is the one of the last ADD.
        self.last_configuration: dict | None = None

    async def handle(self, request: Request, record: Record) -> Answer:
        """The answer to any request, an error of ours included. `record` is filled in, and left open."""
        command = request.variables.get("CNI_COMMAND", "")
        version = VERSIONS[-1]
        try:
            call = decode(request)
            version = call.version
            record.pod = "/".join(call.pod) if call.container else ""
            answer = await self._dispatch(command, call, record)
        except CniError as error:
            failure = error
        except AssignmentError as error:
            failure = CniError(INVALID_CONFIGURATION, str(error))
        except (ApiError, Unreachable) as error:
            failure = CniError(TRY_AGAIN_LATER, str(error))
        except Exception as error:
            log.exception("%s failed", command)
            failure = CniError(INTERNAL, f"internal error: {error!r}", "see: journalctl -u podnet-ipam")
        else:
            return Answer(0, answer)
        record.fail(failure)
        return error_answer(failure, version)

    async def _dispatch(self, command: str, call: Call, record: Record) -> bytes:
        if command == "ADD":
            return await (self._add_for_calico if is_calico(call.config) else self._add)(call, record)
        if command == "DEL":
            return await self._del(call, record)
        if command == "CHECK":
            return self._check(call)
        if command == "GC":
            return await self._gc(call)
        if command == "STATUS":
            return self._status()
        known = "ADD, DEL, CHECK, GC, STATUS and VERSION"
        raise CniError(INVALID_ENVIRONMENT, f"CNI_COMMAND is {command!r}; {known} are supported")

    async def _add_for_calico(self, call: Call, record: Record) -> bytes:
        lock = self._host_lock(call.config.get("ipam_lock_file") or LOCK_FILE)
        try:
            async with lock.held():
                return await self._add(call, record)
        except CniError as error:
            raise error.for_calico() from error

    async def _add(self, call: Call, record: Record) -> bytes:
        if not OBJECT_NAME.fullmatch(call.handle.lower()):
            message = f"network name {call.network!r}: with the container id it must make an object name; leave '_' out"
            raise CniError(INVALID_CONFIGURATION, message)
        subject = await self._subject(call)
        self.last_configuration = call.plugin
        results = Results.of(call.config, call.asked.gateways + call.configured.gateways)
        self._cluster.keep_free((*results.gateways, *results.range_gateways), results.pools_are_subnets)
        asked = self._addresses(call, subject)
        before = self._ipam.holding(call.handle)
        outcome = await self._assign(call, subject, asked)
        record.note(outcome)
        held = outcome.addresses
        answered = [address for address in held if address.address in asked] if asked else held
        try:
            result = results.result(call.version, answered, bool(asked))
        except CniError:
            # Whoever got no address need not ask for a DEL; what runs keeps what it has.
            if not before:
                await self._ipam.release(call.handle)
            raise
        return codec.encode(result)

    async def _assign(self, call: Call, subject: Subject, asked: list[str]) -> Outcome:
        """What the attachment holds: the addresses that are asked for, else one of each family."""
        wanted = asked or self._families(call, subject)
        if not wanted:
            message = "neither assign_ipv4 nor assign_ipv6 is true: a pod needs one of them"
            raise CniError(INVALID_CONFIGURATION, message)
        seconds = sticky_seconds(subject) if call.in_kubernetes else 0
        keep = Keep(f"{subject} of network {call.network}", seconds) if seconds else FOR_NOBODY
        try:
            return await self._ipam.assign(call.handle, subject, wanted, call.attributes, call.netns, keep)
        except AssignmentError as error:
            words = refusal(subject, wanted, self._cluster.pools) or ""
            reason = NO_POOL if isinstance(error, NoPool) else ""
            raise CniError(INVALID_CONFIGURATION, str(error), calico=words, reason=reason) from None

    @staticmethod
    def _families(call: Call, subject: Subject) -> tuple[int, ...]:
        """Those of the ranges that are asked for and configured, if any are asked for: each is for an address."""
        if subject.asked:
            return tuple(sorted(subject.asked.keys() | call.configured.pools.keys()))
        return families(subject, configured_families(call.plugin, call.configured))

    @staticmethod
    def _addresses(call: Call, subject: Subject) -> list[str]:
        """The very addresses that are asked for; mostly none. The CNI conventions' ways come before the annotation."""
        runtime, arguments = call.config.get("runtimeConfig") or {}, (call.config.get("args") or {}).get("cni") or {}
        for source, texts in (("capability ips", runtime.get("ips")), ("args.cni.ips", arguments.get("ips"))):
            if texts:
                return parse_addresses([str(text).partition("/")[0] for text in texts], f"{subject}: {source}")
        if "IP" in call.arguments:
            return parse_addresses([call.arguments["IP"]], f"{subject}: IP of CNI_ARGS")
        return addresses(subject)

    async def _del(self, call: Call, record: Record) -> bytes:
        record.note(await self._ipam.release(call.handle, call.interface))
        return b""

    def _check(self, call: Call) -> bytes:
        """Whether the attachment still holds what the runtime was told (prevResult)."""
        previous = call.config.get("prevResult")
        if previous is None:
            raise CniError(INVALID_CONFIGURATION, "CHECK needs prevResult, which says what ADD has answered")
        try:
            told = {str(ipaddress.ip_interface(entry.get("address")).ip) for entry in previous.get("ips") or ()}
        except ValueError as error:
            raise CniError(INVALID_CONFIGURATION, f"prevResult.ips: {error}") from None
        held = {address.address for address in self._ipam.holding(call.handle, call.interface)}
        if not held:
            raise CniError(NOT_ASSIGNED, f"handle {call.handle} holds nothing")
        missing = told - held
        if missing:
            raise CniError(NOT_ASSIGNED, f"handle {call.handle} does not hold {', '.join(sorted(missing))}")
        return b""

    async def _gc(self, call: Call) -> bytes:
        """Free what is not in the list of valid attachments. `null` is an empty list; without the key, none is meant.

        `cni.dev/attachments` is a misspelling that libcni sends along.
        """
        key = next((key for key in _VALID_ATTACHMENTS if key in call.config), None)
        if key is None:
            raise CniError(INVALID_CONFIGURATION, f"GC needs {_VALID_ATTACHMENTS[0]}, the list of what is to be kept")
        try:
            valid = {(attachment["containerID"], attachment["ifname"]) for attachment in call.config[key] or ()}
        except (TypeError, KeyError):
            message = f"{key} is {call.config[key]!r}; a list of objects with containerID and ifname is expected"
            raise CniError(INVALID_CONFIGURATION, message) from None
        freed = await self._collector.collect(call.network, valid)
        log.info("GC network=%s valid=%s freed=%s", call.network, len(valid), ",".join(freed) or "-")
        return b""

    def _status(self) -> bytes:
        reason, limited = self._ipam.why_unable(), self._ipam.why_limited()
        if reason:
            raise CniError(LIMITED_CONNECTIVITY if limited else NOT_AVAILABLE, reason, limited or "")
        return b""

    async def _subject(self, call: Call) -> Subject:
        namespace, name = call.pod
        annotations = (call.config.get("runtimeConfig") or {}).get(POD_ANNOTATIONS)
        if is_calico(call.config):
            annotations = {}
        elif annotations is None:
            asked = call.in_kubernetes and self._cluster.client.knows_pods
            annotations = await self._pod_annotations(call) if asked else {}
        try:
            configured = configured_pools(call.plugin, call.configured)
            subject = await self._cluster.subject(self._node, namespace, name, annotations, configured)
            subject = replace(subject, asked=call.asked.pools)
            return replace(subject, namespace_annotations={}) if is_calico(call.config) else subject
        except NotFound:
            raise CniError(
                INVALID_ENVIRONMENT, f"pod {namespace}/{name}: namespace {namespace} does not exist"
            ) from None

    async def _pod_annotations(self, call: Call) -> dict:
        """The annotations of the very pod that the runtime starts, for runtimes that do not send them along.

        It is one request of about a millisecond. A watch of the node's pods would bring every change of their status,
        need one more right, and still not tell whether it has come as far as the pod that starts now.
        """
        namespace, name = call.pod
        try:
            pod = await self._cluster.client.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        except NotFound:
            raise CniError(INVALID_ENVIRONMENT, f"pod {namespace}/{name} does not exist") from None
        uid = call.arguments.get("K8S_POD_UID")
        if uid and pod["metadata"]["uid"] != uid:
            raise CniError(INVALID_ENVIRONMENT, f"pod {namespace}/{name} was replaced: its uid is not {uid} any more")
        return pod["metadata"].get("annotations") or {}


def decode(request: Request) -> Call:
    """Decode a request. CniError with the code that the specification gives to each defect."""
    try:
        config = codec.decode(request.stdin)
    except (ValueError, RecursionError) as error:
        raise CniError(UNDECODABLE, f"the network configuration is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise CniError(UNDECODABLE, "the network configuration is not a JSON object")
    version = config.get("cniVersion") or "0.1.0"
    if version not in VERSIONS:
        supported = ", ".join(VERSIONS)
        raise CniError(INCOMPATIBLE_VERSION, f"cniVersion {version} is not supported", f"supported: {supported}")
    network = config.get("name")
    if not isinstance(network, str) or not _IDENTIFIER.fullmatch(network):
        raise CniError(
            INVALID_CONFIGURATION, f"the network's name is {network!r}: letters, digits, '_', '.', '-' are allowed"
        )
    command = request.variables.get("CNI_COMMAND", "")
    if VERSIONS.index(version) < VERSIONS.index(_SINCE.get(command, version)):
        message = f"{command} exists since cniVersion {_SINCE[command]}, and the configuration has {version}"
        raise CniError(INCOMPATIBLE_VERSION, message)
    container = request.variables.get("CNI_CONTAINERID", "")
    if command in _WITHOUT_CONTAINER:
        return Call(version, network, "", config, {})
    if not _IDENTIFIER.fullmatch(container):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_CONTAINERID is {container!r}, which is no container id")
    if command in _NEEDS_CONFIGURATION:
        check_types(config)
    arguments = _arguments(request.variables.get("CNI_ARGS", ""))
    netns, interface = (request.variables.get(key, "") for key in ("CNI_NETNS", "CNI_IFNAME"))
    return Call(version, network, container, config, arguments, netns, interface)


def _arguments(text: str) -> dict[str, str]:
    """CNI_ARGS, `KEY=VALUE;...`. Unknown keys are left to others, as every runtime asks for by IgnoreUnknown."""
    arguments = {}
    for pair in filter(None, text.split(";")):
        key, separator, value = pair.partition("=")
        if not separator:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS contains {pair!r}, which is not KEY=VALUE")
        arguments[key] = value
    return arguments


def configured_pools(plugin: dict, ranges: Ranges) -> dict[int, list[str]]:
    """The pools that the configuration names for each family, for pods of which no annotation names any."""
    return {family: plugin.get(f"ipv{family}_pools") or ranges.pools.get(family) or [] for family in (4, 6)}


def configured_families(plugin: dict, ranges: Ranges) -> list[int]:
    """calico-ipam's flags are strings; booleans are accepted as well."""
    default = ranges.pools or (4,)
    flags = {family: plugin.get(f"assign_ipv{family}", family in default) for family in (4, 6)}
    return [family for family, flag in flags.items() if str(flag).lower() == "true"]


def error_answer(error: CniError, version: str = VERSIONS[-1]) -> Answer:
    """An error as the specification has it: JSON on standard output and a non-zero exit status."""
    body = {"cniVersion": version, "code": error.code, "msg": error.message}
    if error.details:
        body["details"] = error.details
    if error.reason:
        body["reason"] = error.reason
    again, internal = (error.code == code for code in (TRY_AGAIN_LATER, INTERNAL))
    return Answer(1, codec.encode(body), again, internal)
