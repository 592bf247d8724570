{{/*
Pod spec of a program of the admin image; `verb` are its words, `probe` whether it goes through the doors, `admin` whether
the admin API is one of them.
*/}}
{{- define "posta.adminPod" -}}
{{- $root := .root -}}
{{- include "posta.podHead" (dict "root" $root) }}
{{- with .restart }}
restartPolicy: {{ . }}
{{- end }}
initContainers:
  {{- include "posta.schemaCheck" (dict "root" $root "image" "admin") | nindent 2 }}
containers:
  - name: {{ .name }}
    image: {{ include "posta.image" (dict "root" $root "name" "admin") }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    command: [python, -m, services.admin]
    args:
      {{- toYaml .verb | nindent 6 }}
    env:
      {{- include "posta.commonEnv" $root | nindent 6 }}
      {{- if .probe }}
      {{- include "posta.probeEnv" (dict "root" $root "localPart" .localPart "admin" .admin) | nindent 6 }}
      {{- end }}
      {{- with .env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with .more }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    securityContext:
      {{- include "posta.containerSecurity" $root | nindent 6 }}
    resources:
      requests: {cpu: 20m, memory: 128Mi}
      limits: {memory: 256Mi}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if and .probe (include "posta.caKey" $root) }}
      - {name: tls, mountPath: /tls, readOnly: true}
      {{- end }}
      {{- with .mounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
  {{- if and .probe (include "posta.caKey" $root) }}
  - name: tls
    secret:
      secretName: {{ include "posta.tlsSecret" $root }}
      # The authority, never the key.
      items:
        - {key: {{ include "posta.caKey" $root }}, path: ca.crt}
  {{- end }}
  {{- with .volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "posta.caKey" -}}
{{- if .Values.tls.caKey -}}{{ .Values.tls.caKey }}
{{- else if not (or .Values.tls.existingSecret .Values.tls.certManager.enabled) -}}ca.crt{{- end -}}
{{- end }}

{{/* Where a probe finds the doors. IMAP is named by its pods: a test wants two of them. */}}
{{- define "posta.probeEnv" -}}
{{- $root := .root -}}
{{- $name := include "posta.fullname" $root -}}
{{- $services := include "posta.services" $root | fromYaml -}}
- name: POSTA_PROBE_ADDRESS
  value: {{ printf "%s@%s" .localPart (include "posta.domain" $root) }}
- name: POSTA_PROBE_SUBMISSION
  value: {{ printf "%s-submission:%v" $name $services.submission.ports.submissions }}
- name: POSTA_PROBE_IMAP
  value: {{ printf "%s-imap-pods:2993" $name }}
{{- if hasKey $services "pop" }}
- name: POSTA_PROBE_POP
  value: {{ printf "%s-pop:%v" $name $services.pop.ports.pop3s }}
{{- end }}
{{- if hasKey $services "mx" }}
- name: POSTA_PROBE_MX
  value: {{ printf "%s-mx:%v" $name $services.mx.ports.smtp }}
{{- end }}
{{- /* A probe says a PROXY header to every door or to none. */}}
{{- $alike := not (and $root.Values.proxyProtocol.probes (hasKey $services "sync") (kindIs "slice" $services.sync.proxyNetworks)) }}
{{- if and .admin (hasKey $services "sync") $alike }}
{{- with $services.sync.ports.https }}
- name: POSTA_PROBE_ADMIN
  value: {{ printf "%s-sync:%v" $name . }}
{{ include "posta.adminToken" $root }}
{{- end }}
{{- end }}
{{- if include "posta.caKey" $root }}
- name: POSTA_PROBE_CA
  value: /tls/ca.crt
{{- end }}
{{- if $root.Values.proxyProtocol.probes }}
- name: POSTA_PROBE_PROXY
  value: "true"
{{- end }}
{{- end }}

{{/* True where what a probe needs is there. */}}
{{- define "posta.canProbe" -}}
{{- $services := include "posta.services" . | fromYaml -}}
{{- if and (hasKey $services "submission") (hasKey $services "imap") -}}
{{- if and ($services.submission.ports.submissions) ($services.imap.ports.imaps) -}}true{{- end -}}
{{- end -}}
{{- end }}
