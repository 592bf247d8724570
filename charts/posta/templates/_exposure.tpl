{{/* Everything of a door's Service but its selector and ports. */}}
{{- define "posta.serviceSpec" -}}
{{- $exposure := .exposure -}}
type: {{ .type }}
ipFamilyPolicy: {{ $exposure.ipFamilyPolicy }}
{{- with $exposure.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne .type "ClusterIP" }}
externalTrafficPolicy: {{ $exposure.externalTrafficPolicy }}
{{- end }}
{{- if eq .type "LoadBalancer" }}
{{- with $exposure.loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with $exposure.loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with $exposure.externalIPs }}
externalIPs:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
